"""Where a component begins in a file: names, wrappers and nesting in any order and combination."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.config.models import DiTConfig
from flashmotion_jax.converters import adapters, dit
from flashmotion_jax.converters.mapping import make_entries
from flashmotion_jax.converters.names import Names
from flashmotion_jax.converters.nearest import describe_nearest
from flashmotion_jax.converters.planning import Known, plan_contents
from flashmotion_jax.converters.recognition import recognize
from flashmotion_jax.converters.tensors import Tensor
from flashmotion_jax.runtime.errors import UserError

DIT = DiTConfig(dim=16, num_heads=2, ffn_dim=24, num_layers=1, text_dim=8, freq_dim=8)
CONFIGS = {
    "dit": DIT,
    "adapters/controlnet": ControlNetConfig(),
    "adapters/resnet": ResNetAdapterConfig(width=8),
}


def tensor(shape):
    return Tensor(tuple(shape), "float32", lambda: np.zeros(shape, np.float32))


def keys_of(kind):
    """The keys and shapes of a component under the first names of its table."""
    is_dit = kind == "dit"
    module = components.abstract_module(kind, CONFIGS[kind], "float32", None if is_dit else DIT)
    rows = (
        dit.table(DIT, "original") if is_dit else adapters.table(kind[9:], CONFIGS[kind], DIT, {})
    )
    entries = make_entries(components.flat_parameters(module), rows)
    return {key: tensor(entry.source_shape) for entry in entries for key in entry.keys}


#: As in MagicMotion's code, whose projections are 2-D convolutions.
CONTROLNET = {
    key.replace("zero_convs.", "out_projectors."): tensor((*t.shape, 1, 1))
    if key == "zero_convs.0.weight"
    else t
    for key, t in keys_of("adapters/controlnet").items()
}
FILES = {
    "adapters/controlnet": CONTROLNET,
    "adapters/resnet": keys_of("adapters/resnet"),
    "dit": keys_of("dit"),
}
WRAPPERS = (
    "state_dict.",
    "model.",
    "module.",
    "ema.",
    "generator_ema.",
    "model_state_dict.",
    "_fsdp_wrapped_module.",
    "_orig_mod.",
    "base_model.model.",
    "controlnet.",
    "trajectory_controlnet.",
    "adapter_ema.",
    "transformer.",
    "dit.",
    "model.diffusion_model.",
    "pipe.dit.",
)
COMBINATIONS = [
    "".join(parts) for count in range(4) for parts in itertools.permutations(WRAPPERS, count)
]


def problems(source, **options):
    names = options.pop("names", Names())
    contents = recognize(source, prefix=names.prefix, **options)
    plans = plan_contents(contents, Known(dtype="float32", dit=DIT, names=names))
    unused = [key for key in contents.unused if not names.is_ignored(key)]
    return contents, plans, [problem for plan in plans for problem in plan.problems()] + unused


@pytest.mark.parametrize("kind", FILES)
def test_all_combinations_of_three_wrappers(kind):
    for prefix in COMBINATIONS:
        contents = recognize({prefix + key: t for key, t in FILES[kind].items()})
        (part,) = contents.parts
        assert part.kind == kind, prefix
        assert part.tensors.keys() == FILES[kind].keys(), prefix
        assert not contents.notices, prefix
        assert not contents.unused, prefix


@pytest.mark.parametrize("kind", FILES)
def test_what_is_found_fits(kind):
    source = {f"module.model.ema.{key}": t for key, t in FILES[kind].items()}
    _, (plan,), faults = problems(source)
    assert (plan.kind, plan.config, faults) == (kind, CONFIGS[kind], [])


def test_wrappers_inside_a_key():
    source = {
        key.replace("blocks.0.", "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module."): t
        for key, t in CONTROLNET.items()
    }
    _, (plan,), faults = problems({f"_orig_mod.{key}": t for key, t in source.items()})
    assert (plan.kind, faults) == ("adapters/controlnet", [])


def under(**groups):
    return {f"{name}.{key}": t for name, group in groups.items() for key, t in group.items()}


@pytest.mark.parametrize(
    ("source", "weights", "prefix"),
    [
        (under(adapter=CONTROLNET, adapter_ema=CONTROLNET), "ema", "adapter_ema."),
        (under(adapter=CONTROLNET, adapter_ema=CONTROLNET), "raw", "adapter."),
        (under(model=CONTROLNET, ema=CONTROLNET), "ema", "ema."),
        (under(model=CONTROLNET), "ema", "model."),
    ],
)
def test_the_average_or_the_raw_weights(source, weights, prefix):
    contents, plans, faults = problems(source, weights=weights)
    assert ([part.prefix for part in contents.parts], faults) == ([prefix], [])
    assert len(contents.notices) == len(source) // len(CONTROLNET) - 1
    assert len(plans) == 1


def test_raw_weights_that_are_not_there():
    with pytest.raises(UserError, match="only under 'ema'; expected --weights ema"):
        recognize(under(ema=CONTROLNET), weights="raw")


def test_a_generator_and_a_controlnet_in_one_file():
    """The input of the ControlNet is read from its own patch embedding, not from the DiT's."""
    for source in (
        under(model=FILES["dit"], controlnet=CONTROLNET),
        under(model={**FILES["dit"], **under(controlnet=CONTROLNET)}),
        {**FILES["dit"], **under(controlnet=CONTROLNET)},
    ):
        _, plans, faults = problems(source)
        assert ([plan.kind for plan in plans], faults) == (["dit", "adapters/controlnet"], [])
        assert plans[1].config == ControlNetConfig(input="latents+trajectory")
        assert any("order of the 96 input channels" in line for line in plans[1].notices)


def test_a_discriminator_and_a_leftover_head_are_left_out():
    head = {key: t for key, t in FILES["dit"].items() if key.startswith("head.")}
    beside = {"weight": tensor((3,)), "blocks.0.weight": tensor((3,))}
    for source in (
        under(adapter={**CONTROLNET, **head}, discriminator=beside),
        {**CONTROLNET, **head, **under(discriminator=beside, cls_pred_branch=beside)},
        under(state_dict={**under(controlnet={**CONTROLNET, **head}), **under(critic=beside)}),
    ):
        contents, (plan,), faults = problems(source)
        assert (plan.kind, faults) == ("adapters/controlnet", [])
        # Beside the adapter's keys they have a line of their own, elsewhere one for each group.
        assert sum(line.startswith("left out of") for line in plan.notices) == 1
        assert len(contents.notices) == (not source.keys() & CONTROLNET.keys())


def test_a_lightning_file_with_the_state_of_its_optimizer():
    source = under(
        state_dict=under(model=CONTROLNET, loss=under(vgg={"weight": tensor((3,))})),
        optimizer_states={"0.state.0.exp_avg": tensor((3,))},
        global_step={"x": tensor(())},
    )
    contents, _, faults = problems(source)
    assert faults == []
    assert {line.rpartition("'")[0].rpartition("'")[2] for line in contents.notices} == {
        "optimizer_states",
        "global_step",
        "state_dict",
    }


def test_a_critic_is_never_taken():
    contents, _, _ = problems(under(generator=FILES["dit"], critic=FILES["dit"]))
    assert [part.prefix for part in contents.parts] == ["generator."]
    assert contents.notices == ["left out: dit under 'critic'"]
    with pytest.raises(UserError, match="for training alone"):
        recognize(under(fake_score=FILES["dit"]))


def test_an_unknown_prefix_is_named_and_a_map_takes_it():
    source = under(gizmo=CONTROLNET)
    with pytest.raises(UserError, match=r'no prefix that is known.*{"prefix": "gizmo."}'):
        recognize(source)
    _, (plan,), faults = problems(source, names=Names(prefix="gizmo."))
    assert (plan.kind, faults) == ("adapters/controlnet", [])
    with pytest.raises(UserError, match=r"no component begins under the prefix 'x'; .*'gizmo.'"):
        recognize(source, prefix="x")


def test_two_copies_are_a_choice():
    source = under(adapter=CONTROLNET, model=CONTROLNET)
    with pytest.raises(UserError, match=r'2 times, under.*{"prefix": "adapter."}'):
        recognize(source)
    assert problems(source, names=Names(prefix="model."))[2] == []


def test_what_is_beside_a_part_may_be_of_it():
    source = under(generator=under(model=CONTROLNET) | {"hint": tensor((3,))})
    assert problems(source)[2] == ["generator.hint"]
    assert problems(source, names=Names(ignore=(r"generator\.hint",)))[2] == []


@pytest.mark.parametrize("start", dit.OTHER_MODELS)
def test_other_models_of_wan_are_named(start):
    with pytest.raises(UserError, match=f"the DiT is that of Wan.*{start}"):
        problems({**FILES["dit"], f"{start}0.weight": tensor((3,))})


def test_a_lora_is_named():
    with pytest.raises(UserError, match=r"is a LoRA, .* --lora"):
        recognize({"transformer.blocks.0.attn1.to_q.lora_A.weight": tensor((4, 16))})


def test_files_of_many_keys_and_places_end_soon():
    shape = tensor((1,))
    with pytest.raises(UserError, match="begin at 20000 places in the file, such as under"):
        recognize({f"x{i}.head.head.weight": shape for i in range(20_000)})
    many = {f"x{i}.blocks.{i}.y.weight": shape for i in range(20_000)}
    with pytest.raises(UserError, match="no known component"):
        recognize(many)
    assert "no tensor has the name" in describe_nearest(many, Known(dtype="float32"))


@pytest.mark.parametrize(
    "keys",
    [
        (),
        ("",),
        (".",),
        ("...",),
        ("weight",),
        ("module.",),
        ("zero_convs.0.weight",),
        ("blocks.0.conv1.weight", "blocks.0.zero_conv.weight"),
        ("head.head.weight",),
        ("a\nb.post_quant_conv.weight",),
        ("shared.weight", "encoder.final_layer_norm.weight"),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (128, 128), (4, 4, 4, 4, 4, 4)])
def test_odd_files_are_one_line(keys, shape):
    source = dict.fromkeys(keys, tensor(shape))
    try:
        assert problems(source)[2]
    except UserError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 500
    describe_nearest(source, Known(dtype="float32", dit=DIT))
