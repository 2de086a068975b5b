"""Names and maths of LoRA files, against sums written down here, and every kind of bad input."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.checkpoints.components import abstract_module, flat_parameters
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.converters.inspection import inspect
from flashmotion_jax.converters.lora import component_of, open_lora, plan_lora
from flashmotion_jax.converters.lora_changes import Change
from flashmotion_jax.converters.lora_keys import split_key
from flashmotion_jax.converters.recognition import recognize
from flashmotion_jax.converters.tensors import Tensor
from flashmotion_jax.runtime.errors import UserError
from helpers import lora_files, tiny

CONFIG = tiny.DIT
PAIRS = lora_files.factors(CONFIG)


def plan(path, kind="dit"):
    configs = {"adapters/controlnet": ControlNetConfig(), "adapters/resnet": ResNetAdapterConfig()}
    of = CONFIG if kind != "dit" else None
    module = abstract_module(kind, configs.get(kind, CONFIG), "float32", of)
    file, path = open_lora(path)
    return plan_lora(file, path, configs.get(kind), flat_parameters(module), CONFIG)


def difference(lora, target, layer, shape):
    """What a file adds to a weight of zeros, in the shape of PyTorch."""
    weight = jnp.zeros(shape)
    for change in lora.changes[target, layer]:
        arrays = {name: jnp.asarray(tensor.read()) for name, tensor in change.parts.items()}
        weight = change.apply(weight, arrays, 1.0)
    return np.asarray(weight)


TARGETS = {"ffn.0": "ffn.up", "ffn.2": "ffn.down"}


@pytest.mark.parametrize("family", lora_files.FAMILIES)
def test_every_familys_names_mean_the_same(family, tmp_path):
    path = lora_files.write(tmp_path / "a.safetensors", lora_files.named(family, PAIRS, alpha=3.0))
    lora = plan(path)
    assert len(lora.changes) == len(PAIRS) == 30
    for name, (down, up) in PAIRS.items():
        _, layer, module = name.split(".", 2)
        target = f"blocks.{TARGETS.get(module, module)}.kernel"
        found = difference(lora, target, int(layer), (len(up), down.shape[1]))
        expected = 3.0 / len(down) * (up.astype(np.float64) @ down)
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)
    assert str(lora) == "a.safetensors: LoRA, rank 4 to 6, changes 30 tensors of the generator"


def test_ai_toolkits_mixed_names(tmp_path):
    rng = np.random.default_rng(0)
    tensors, expected = {}, {}
    for module in ("self_attn_to_q", "cross_attn_to_out_0", "ffn_net_0_proj"):
        rows, columns = (64, 48) if module.startswith("ffn") else (48, 48)
        w1 = rng.standard_normal((4, 6)).astype(np.float32)
        w2 = rng.standard_normal((rows // 4, columns // 6)).astype(np.float32)
        key = f"lycoris_blocks_2_{module}"
        tensors |= {f"{key}.lokr_w1": w1, f"{key}.lokr_w2": w2, f"{key}.alpha": np.float32(1e10)}
        expected[module] = np.kron(w1, w2)
    lora = plan(lora_files.write(tmp_path / "a.safetensors", tensors))
    for module, target in (
        ("self_attn_to_q", "self_attn.q"),
        ("cross_attn_to_out_0", "cross_attn.o"),
        ("ffn_net_0_proj", "ffn.up"),
    ):
        shape = expected[module].shape
        found = difference(lora, f"blocks.{target}.kernel", 2, shape)
        np.testing.assert_allclose(found, expected[module], atol=1e-6)


def test_differences_of_everything_and_the_patch_embedding(tmp_path):
    """Distillation LoRAs: `.diff` of norms, `.diff_b` of biases, `.diff_m` of the modulation."""
    rng = np.random.default_rng(1)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    prefix = "diffusion_model."
    tensors = {
        "blocks.1.norm3.diff": draw(48),
        "blocks.1.norm3.diff_b": draw(48),
        "blocks.1.self_attn.norm_q.diff": draw(48),
        "blocks.1.self_attn.q.diff_b": draw(48),
        "blocks.1.diff_m": draw(1, 6, 48),
        "head.head.diff": draw(192, 48),
        "head.diff_m": draw(1, 2, 48),
        "patch_embedding.lora_down.weight": draw(2, 48, 1, 2, 2),
        "patch_embedding.lora_up.weight": draw(48, 2, 1, 1, 1),
        "time_projection.1.lora_down.weight": draw(2, 48),
        "time_projection.1.lora_up.weight": draw(288, 2),
        "text_embedding.0.diff_b": draw(48),
    }
    path = lora_files.write(
        tmp_path / "a.safetensors", {prefix + key: array for key, array in tensors.items()}
    )
    lora = plan(path)
    expected = {
        ("blocks.norm3.scale", 1): "blocks.1.norm3.diff",
        ("blocks.norm3.bias", 1): "blocks.1.norm3.diff_b",
        ("blocks.self_attn.norm_q.scale", 1): "blocks.1.self_attn.norm_q.diff",
        ("blocks.self_attn.q.bias", 1): "blocks.1.self_attn.q.diff_b",
        ("blocks.modulation", 1): "blocks.1.diff_m",
        ("head.head.kernel", 0): "head.head.diff",
        ("head.modulation", 0): "head.diff_m",
        ("text_embedding.up.bias", 0): "text_embedding.0.diff_b",
    }
    for place, key in expected.items():
        found = difference(lora, *place, tensors[key].shape)
        np.testing.assert_array_equal(found, tensors[key])
    down, up = (tensors[f"patch_embedding.lora_{x}.weight"] for x in ("down", "up"))
    found = difference(lora, "patch_embedding.kernel", 0, (48, 48, 1, 2, 2))
    by_hand = np.einsum("or,rictw->oictw", up[:, :, 0, 0, 0], down)
    np.testing.assert_allclose(found, by_hand, atol=1e-6)


def changed(kind, weight, factor=1.0, strength=1.0, **parts):
    arrays = {name: jnp.asarray(part, jnp.float32) for name, part in parts.items()}
    tensors = {name: Tensor(a.shape, "float32", lambda a=a: a) for name, a in arrays.items()}
    change = Change(kind, tensors, factor)
    change.check(np.shape(weight))
    return np.asarray(change.apply(jnp.asarray(weight, jnp.float32), arrays, strength)).tolist()


ZEROS = np.zeros((2, 3))


def test_maths_by_hand():
    pair = {"down": [[1, 2, 3]], "up": [[1], [2]]}
    assert changed("LoRA", ZEROS, 0.5, 2.0, **pair) == [[1, 2, 3], [2, 4, 6]]
    assert changed("LoRA", ZEROS, 1.0, 2.0, **pair) == [[2, 4, 6], [4, 8, 12]]
    kron = {"lokr_w1": [[1, 2]], "lokr_w2": [[3], [4]]}
    assert changed("LoKr", np.zeros((2, 2)), **kron) == [[3, 6], [4, 8]]
    halves = {"lokr_w1_a": [[1]], "lokr_w1_b": [[1, 2]], "lokr_w2": [[3], [4]]}
    assert changed("LoKr", np.zeros((2, 2)), 0.5, **halves) == [[1.5, 3], [2, 4]]
    loha = {"hada_w1_a": [[1], [2]], "hada_w1_b": [[1, 3]]}
    loha |= {"hada_w2_a": [[2], [1]], "hada_w2_b": [[1, 1]]}
    assert changed("LoHa", np.zeros((2, 2)), 0.5, **loha) == [[1, 3], [1, 3]]
    nothing = {"down": [[0, 0]], "up": [[0]], "magnitude": [10]}
    assert changed("LoRA", [[3, 4]], **nothing) == [[6, 8]]
    assert changed("LoRA", [[3, 4]], strength=0.5, **nothing) == [[4.5, 6]]
    by_column = {"down": [[0, 0]], "up": [[0], [0]], "magnitude": [[10, 2]]}
    assert changed("LoRA", [[3, 0], [4, 5]], **by_column) == [[6, 0], [8, 2]]
    assert changed("difference", [[1, 2]], strength=2.0, difference=[[1, 1]]) == [[3, 4]]
    assert changed("new weight", [[1, 2]], strength=0.5, new_weight=[[3, 6]]) == [[2, 4]]


def test_alpha_of_peft_from_its_configuration(tmp_path):
    """alpha_pattern, and alpha / sqrt(rank) of rsLoRA."""
    tensors = lora_files.named("peft", PAIRS, alpha=1.0)
    tensors = {k: v * len(PAIRS[_module(k)][0]) if "lora_B" in k else v for k, v in tensors.items()}
    lora_files.write(tmp_path / "adapter_model.safetensors", tensors)
    values = {"r": 4, "lora_alpha": 8, "alpha_pattern": {"self_attn.q": 2}, "use_rslora": False}
    for by_root in (False, True):
        values["use_rslora"] = by_root
        (tmp_path / "adapter_config.json").write_text(json.dumps(values))
        lora = plan(tmp_path)
        for name, target, alpha in (("self_attn.q", "self_attn.q", 2), ("ffn.2", "ffn.down", 8)):
            down, up = PAIRS[f"blocks.1.{name}"]
            rank = len(down)
            found = difference(lora, f"blocks.{target}.kernel", 1, (len(up), down.shape[1]))
            factor = alpha / (rank**0.5 if by_root else rank)
            np.testing.assert_allclose(found, factor * (up @ down), atol=1e-5)


def _module(key):
    return key.removeprefix("base_model.model.").partition(".lora")[0]


def test_text_encoders_are_left_out_and_said(tmp_path):
    tensors = lora_files.named("kohya", PAIRS)
    tensors["lora_te1_encoder_block_0.alpha"] = np.float32(1)
    lora = plan(lora_files.write(tmp_path / "a.safetensors", tensors))
    assert str(lora).endswith("generator; 1 keys of a text encoder are left out")


def test_adapters_have_loras_too(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "controlnet.blocks.0.self_attn.q.lora_A.weight": rng.random((2, 48), np.float32),
        "controlnet.blocks.0.self_attn.q.lora_B.weight": rng.random((48, 2), np.float32),
    }
    path = lora_files.write(tmp_path / "a.safetensors", tensors)
    assert component_of(open_lora(path)[0]) == "adapter"
    lora = plan(path, "adapters/controlnet")
    assert list(lora.changes) == [("blocks.self_attn.q.kernel", 0)]
    convolution = {
        "resnet.blocks.1.conv1.lora_A.weight": rng.random((2, 128, 3, 3), np.float32),
        "resnet.blocks.1.conv1.lora_B.weight": rng.random((128, 2, 1, 1), np.float32),
    }
    path = lora_files.write(tmp_path / "b.safetensors", convolution)
    assert list(plan(path, "adapters/resnet").changes) == [("blocks.conv1.kernel", 1)]
    marked = {"flashmotion_component": "adapters/controlnet"}
    path = lora_files.write(tmp_path / "c.safetensors", lora_files.named("bare", PAIRS), marked)
    assert component_of(open_lora(path)[0]) == "adapter"
    plain = lora_files.write(tmp_path / "d.safetensors", lora_files.named("bare", PAIRS))
    assert component_of(open_lora(plain)[0]) == "dit"


Q = "diffusion_model.blocks.0.self_attn.q"
DOWN, UP = f"{Q}.lora_down.weight", f"{Q}.lora_up.weight"


def ones(*shape):
    return np.ones(shape, np.float32)


GOOD = {DOWN: ones(2, 48), UP: ones(48, 2), f"{Q}.alpha": np.float32(2)}
BAD = {
    "a whole model": ({"blocks.0.self_attn.q.weight": ones(48, 48)}, "weights of a whole model"),
    "other keys": ({"step": ones(1)}, r"holds step where a LoRA was expected"),
    "half of a pair": ({DOWN: ones(2, 48)}, "it has lora_down and lacks lora_up"),
    "half of a LoHa": ({f"{Q}.hada_w1_a": ones(48, 2)}, "lacks hada_w1_b"),
    "half of a LoKr": ({f"{Q}.lokr_w1": ones(4, 4)}, "it has lokr_w1 and lacks lokr_w2"),
    "half of a half": (
        {f"{Q}.lokr_w1": ones(4, 4), f"{Q}.lokr_w2_a": ones(12, 2)},
        "lacks lokr_w2_b",
    ),
    "two ranks": (GOOD | {UP: ones(48, 3)}, r"lora_up \[48, 3\] and lora_down \[2, 48\] have diff"),
    "no rank": ({DOWN: ones(48), UP: ones(48)}, "different ranks|do not fit"),
    "rank 0": (GOOD | {DOWN: ones(0, 48), UP: ones(48, 0)}, "its rank is 0"),
    "another width": (
        {DOWN: ones(2, 5120), UP: ones(5120, 2)},
        r"made for \[5120, 5120\], but the weight is \[48, 48\]; .*that of Wan2.1 or Wan2.2 14B",
    ),
    "more blocks": (
        {key.replace("blocks.0", "blocks.30"): value for key, value in GOOD.items()},
        r"blocks.30.self_attn.q: this model has no such module; this model has 3 blocks",
    ),
    "another model": (
        {key.replace("self_attn.q", "cross_attn.k_img"): value for key, value in GOOD.items()},
        "no such module",
    ),
    "alpha NaN": (GOOD | {f"{Q}.alpha": np.float32("nan")}, r"alpha is \[nan\]"),
    "two alphas": (GOOD | {f"{Q}.alpha": ones(2)}, "expected one finite number"),
    "an alpha alone": ({f"{Q}.alpha": np.float32(1)}, "an alpha and nothing else"),
    "a missing alpha": (
        GOOD | {key.replace(".q.", ".k."): value for key, value in GOOD.items() if "lora" in key},
        "blocks.0.self_attn.k: its alpha is missing",
    ),
    "NaN": (GOOD | {UP: np.full((48, 2), np.nan, np.float32)}, "up holds NaN"),
    "a magnitude alone": ({f"{Q}.dora_scale": ones(48, 1)}, "magnitude of DoRA and no LoRA"),
    "a magnitude of another size": (GOOD | {f"{Q}.dora_scale": ones(7, 1)}, r"dora_scale \[7, 1\]"),
    "a Tucker core": (GOOD | {f"{Q}.lora_mid.weight": ones(2, 2, 3, 3)}, "Tucker"),
    "a control LoRA": (GOOD | {f"{Q}.reshape_weight": ones(2)}, "control LoRA"),
    "OFT": ({f"{Q}.oft_blocks": ones(4, 12, 12)}, "OFT or BOFT"),
    "GLoRA": ({f"{Q}.a1.weight": ones(2, 48)}, "GLoRA"),
    "two adapters": (
        {f"{Q}.lora_A.one.weight": ones(2, 48), f"{Q}.lora_A.two.weight": ones(2, 48)},
        "two tensors down",
    ),
    "a bias that the layer lacks": ({f"{Q[:-1]}norm_q.diff_b": ones(48)}, "no .*norm_q.bias"),
    "a text encoder alone": ({"lora_te_a.alpha": ones(1)}, "no LoRA of a generator"),
    "LoKr of another size": (
        {f"{Q}.lokr_w1": ones(4, 4), f"{Q}.lokr_w2": ones(4, 4)},
        r"\[16, 16\]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_in_one_line(case, tmp_path):
    tensors, message = BAD[case]
    path = lora_files.write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(UserError, match=message) as error:
        plan(path)
    text = str(error.value)
    assert "\n" not in text and "a.safetensors" in text
    assert len(text) - len(str(path)) < 450


def test_problems_are_counted(tmp_path):
    tensors = {key.replace("blocks", "layers"): value for key, value in GOOD.items()}
    tensors |= {key.replace("layers.0", "layers.1"): value for key, value in tensors.items()}
    with pytest.raises(UserError, match=r"layers.0.*and 1 more like it"):
        plan(lora_files.write(tmp_path / "a.safetensors", tensors))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"lora_alpha": "x"}',
        '{"lora_alpha": NaN}',
        '{"alpha_pattern": 3}',
        '{"alpha_pattern": {"(": 3}}',
        '{"r": []}',
    ],
)
def test_bad_configurations_of_peft(text, tmp_path):
    lora_files.write(tmp_path / "adapter_model.safetensors", lora_files.named("peft", PAIRS))
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(UserError, match="expected the settings of a LoRA"):
        plan(tmp_path)


def test_folders_without_a_lora(tmp_path):
    with pytest.raises(UserError, match="has no adapter_model"):
        open_lora(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_lora(tmp_path / "gone.safetensors")


def test_keys_with_the_name_of_an_adapter():
    assert split_key("x.lora_A.default.weight") == ("x", "down")
    assert split_key("x.lora_B.bias") == ("x", "up_bias")
    assert split_key("x.lora_magnitude_vector.default.weight") == ("x", "magnitude")
    assert split_key("x.weight") is None


def test_other_commands_say_that_it_is_a_lora(tmp_path):
    path = lora_files.write(tmp_path / "a.safetensors", lora_files.named("kohya", PAIRS))
    text = inspect(str(path), component=None, names=None)
    assert text.endswith("merge it with `flashmotion sample --lora FILE`")
    with pytest.raises(UserError, match="the file is a LoRA"):
        recognize(open_lora(path)[0].tensors)
