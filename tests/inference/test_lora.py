"""LoRAs in a pipeline; merged weights against diffusers and PEFT."""

from __future__ import annotations

import dataclasses
import functools

import jax
import ml_dtypes
import numpy as np
import pytest

from flashmotion_jax import Pipeline, SamplingConfig
from flashmotion_jax.checkpoints.components import (
    flat_parameters,
    parameter_readers,
    save_component,
    write_sampling,
)
from flashmotion_jax.converters import dit
from flashmotion_jax.converters.lora import open_lora, plan_lora
from flashmotion_jax.converters.mapping import make_entries
from flashmotion_jax.inference.lora import Weighted, load_merged
from flashmotion_jax.inference.model_store import Stored
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.errors import UserError
from helpers import lora_files, tiny

CONFIG = dataclasses.replace(tiny.DIT, num_layers=2)
PAIRS = lora_files.factors(CONFIG)
SAMPLING = SamplingConfig(height=32, width=64, num_frames=5, denoising_steps=(1000, 500))


def merged(module, *files):
    """A DiT with LoRAs `(path, weight)` merged."""
    loras = []
    for path, weight in files:
        file, path = open_lora(path)
        parameters = flat_parameters(module)
        loras.append(Weighted(plan_lora(file, path, None, parameters, CONFIG), weight))
    return load_merged(lambda: module, loras)


def as_torch(module):
    """Its weights under the names of diffusers, as NumPy arrays."""
    parameters = flat_parameters(module)
    return {
        key: array
        for entry in make_entries(parameters, dit.table(CONFIG, "diffusers"))
        for key, array in entry.scatter(np.asarray(parameters[entry.target].get_value()))
    }


@pytest.fixture(scope="module")
def ours():
    return tiny.make_dit(CONFIG)


@pytest.fixture
def theirs(ours):
    """The same model in diffusers."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("peft")
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=CONFIG.num_heads,
        attention_head_dim=CONFIG.head_dim,
        in_channels=CONFIG.in_channels,
        out_channels=CONFIG.out_channels,
        text_dim=CONFIG.text_dim,
        freq_dim=CONFIG.freq_dim,
        ffn_dim=CONFIG.ffn_dim,
        num_layers=CONFIG.num_layers,
    )
    weights = {key: torch.tensor(np.ascontiguousarray(a)) for key, a in as_torch(ours).items()}
    model.load_state_dict(weights)
    return model


def assert_same_weights(module, model):
    found = as_torch(module)
    for key, tensor in model.state_dict().items():
        expected = tensor.detach().numpy()
        np.testing.assert_allclose(found[key], expected, rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("family", ["diffusers", "kohya", "comfyui", "lightx2v"])
def test_merging_equals_diffusers(family, ours, theirs, tmp_path):
    import torch
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    tensors = lora_files.named(family, PAIRS)
    path = lora_files.write(tmp_path / "a.safetensors", tensors)
    state = {key: torch.tensor(np.asarray(array)) for key, array in tensors.items()}
    theirs.load_lora_adapter(WanLoraLoaderMixin.lora_state_dict(state), prefix="transformer")
    theirs.fuse_lora(lora_scale=0.7)
    theirs.unload_lora()
    assert_same_weights(merged(ours, (path, 0.7)), theirs)


def test_distillation_loras_with_biases_equal_diffusers(ours, theirs, tmp_path):
    """`.diff_b` beside pairs, time and text embeddings and the head, as LightX2V's have."""
    import torch
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    rng = np.random.default_rng(3)
    tensors = lora_files.named("comfyui", PAIRS)
    tensors = {key: array for key, array in tensors.items() if not key.endswith(".alpha")}
    sizes = {"time_projection.1": (288, 48), "text_embedding.0": (48, 32), "head.head": (192, 48)}
    for name, (rows, columns) in sizes.items():
        key = f"diffusion_model.{name}"
        tensors[f"{key}.lora_down.weight"] = 0.2 * rng.standard_normal((4, columns), np.float32)
        tensors[f"{key}.lora_up.weight"] = rng.standard_normal((rows, 4), np.float32)
    for key in [key for key in tensors if key.endswith("up.weight")]:
        bias = rng.standard_normal(len(tensors[key]), np.float32)
        tensors[key.replace("lora_up.weight", "diff_b")] = bias
    path = lora_files.write(tmp_path / "a.safetensors", tensors)
    state = {key: torch.tensor(array) for key, array in tensors.items()}
    converted = WanLoraLoaderMixin.lora_state_dict(state)
    theirs.load_lora_adapter(converted, prefix="transformer")
    theirs.fuse_lora(lora_scale=1.0)
    theirs.unload_lora()
    assert_same_weights(merged(ours, (path, 1.0)), theirs)


SETTINGS = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "patterns": {"rank_pattern": {"to_q": 3}, "alpha_pattern": {"blocks.1.attn1.to_q": 2}},
    "biases": {"lora_bias": True},
}


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.filterwarnings("ignore")  # of PEFT, about its own defaults
def test_merging_equals_peft(case, ours, theirs, tmp_path):
    import torch

    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["to_q", "to_out.0", "net.2"], **SETTINGS[case]
    )
    model = peft.get_peft_model(theirs, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    module = merged(ours, (tmp_path, 1.0))
    assert_same_weights(module, model.merge_and_unload())


@pytest.mark.parametrize("kind", ["LoKrConfig", "LoHaConfig"])
@pytest.mark.filterwarnings("ignore")
def test_lokr_and_loha_equal_peft(kind, ours, theirs, tmp_path):
    import torch

    peft = pytest.importorskip("peft")
    config = getattr(peft, kind)(r=4, alpha=6, target_modules=["to_q", "net.2"])
    model = peft.get_peft_model(theirs, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lokr_" in name or "hada_" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    module = merged(ours, (tmp_path, 1.0))
    assert_same_weights(module, model.merge_and_unload())


def test_bfloat16_weights_are_rounded_once(tmp_path):
    module = jax.tree.map(lambda a: a.astype(jax.numpy.bfloat16), tiny.make_dit(CONFIG))
    first, second = (
        lora_files.write(tmp_path / f"{seed}.safetensors", lora_files.named("comfyui", pairs))
        for seed, pairs in ((0, PAIRS), (1, lora_files.factors(CONFIG, 1)))
    )
    found = as_torch(merged(module, (first, 1.0), (second, -0.5)))["blocks.1.attn2.to_v.weight"]
    weight = as_torch(module)["blocks.1.attn2.to_v.weight"].astype(np.float32)
    for seed, scale in ((0, 1.0), (1, -0.5)):
        down, up = lora_files.factors(CONFIG, seed)["blocks.1.cross_attn.v"]
        weight = weight + np.float32(scale * 3 / len(down)) * (up @ down)
    error = np.abs(found.astype(np.float32) - weight)
    assert found.dtype == ml_dtypes.bfloat16
    assert (error <= 2.0**-8 * np.abs(weight) + 1e-6).all()


def test_on_a_mesh_the_shardings_stay(ours, tmp_path):
    path = lora_files.write(tmp_path / "a.safetensors", lora_files.named("comfyui", PAIRS))
    alone = as_torch(merged(ours, (path, 1.0)))
    mesh = sharding.make_mesh(fsdp=2, context=2)
    with jax.set_mesh(mesh):
        placed = sharding.place(ours, mesh)
        module = merged(placed, (path, 1.0))
    for name, variable in flat_parameters(module).items():
        before = flat_parameters(placed)[name].get_value()
        assert variable.get_value().sharding == before.sharding, name
    for key, array in as_torch(module).items():
        np.testing.assert_allclose(array, alone[key], atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("checkpoint"), SAMPLING)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    write = functools.partial(lora_files.named, "comfyui")
    generator = lora_files.write(folder / "g.safetensors", write(lora_files.factors(tiny.DIT, 0)))
    adapter = lora_files.write(
        folder / "a.safetensors",
        write(lora_files.factors(tiny.DIT, 1)),
        {"flashmotion_component": "adapters/controlnet"},
    )
    return generator, adapter


def weights(pipe, name):
    """Bits of all weights of a model, by path."""
    with jax.set_mesh(pipe._mesh), pipe._models.use(name) as model:
        arrays = {path: np.asarray(v.get_value()) for path, v in flat_parameters(model).items()}
    return {path: array.tobytes() for path, array in arrays.items()}


@pytest.mark.parametrize("keep_loaded", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unloading_gives_the_same_bits(folder, files, keep_loaded, dtype):
    pipe = Pipeline.from_pretrained(folder, "controlnet", dtype=dtype, keep_loaded=keep_loaded)
    before = {name: weights(pipe, name) for name in ("dit", "adapter")}
    for path, name in zip(files, ("dit", "adapter"), strict=True):
        assert f"{len(lora_files.MODULES) * 3} tensors" in str(pipe.load_lora(path, 0.5))
        changed = {key for key, bits in weights(pipe, name).items() if bits != before[name][key]}
        assert len(changed) == 10 and all(key.startswith("blocks.") for key in changed)
    once = weights(pipe, "dit")
    pipe.load_lora(files[0], 0.25)
    assert weights(pipe, "dit") != once
    pipe.unload_lora(files[0])
    assert weights(pipe, "dit") == before["dit"] and weights(pipe, "adapter") != before["adapter"]
    pipe.unload_lora()
    assert weights(pipe, "adapter") == before["adapter"]


def test_models_in_memory_stay_as_they_are(folder, files):
    stored = Pipeline.from_pretrained(folder, "controlnet")
    with stored._models.use("adapter") as adapter:
        bits = {key: np.array(v.get_value()) for key, v in flat_parameters(adapter).items()}
    pipe = Pipeline.from_pretrained(folder, adapter)
    pipe.load_lora(files[1])
    assert weights(pipe, "adapter") != weights(stored, "adapter")
    for key, variable in flat_parameters(adapter).items():
        np.testing.assert_array_equal(variable.get_value(), bits[key])


def test_bad_requests(folder, files):
    pipe = Pipeline.from_pretrained(folder, None)
    pipe._models.loaders = {
        name: dataclasses.replace(stored, dtype="nothing may be loaded")
        if name == "vae"
        else stored
        for name, stored in pipe._models.loaders.items()
    }
    with pytest.raises(UserError, match="this pipeline has none"):
        pipe.load_lora(files[1])
    with pytest.raises(UserError, match="is nan; expected a finite number"):
        pipe.load_lora(files[0], float("nan"))
    with pytest.raises(UserError, match="expected 'dit' or 'adapter'"):
        pipe.load_lora(files[0], component="vae")
    with pytest.raises(UserError, match="is not loaded; loaded are none"):
        pipe.unload_lora(files[0])
    assert not pipe._models.loaded and not any(pipe._models.loras.values())


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_layers_in_8_bits_are_merged_and_rounded_again(ours, tmp_path, name):
    path = lora_files.write(tmp_path / "a.safetensors", lora_files.named("comfyui", PAIRS))
    write_sampling(tmp_path, SamplingConfig())
    save_component(tmp_path, "dit", CONFIG, parameter_readers(ours), "float32")
    store = {weights: Stored(tmp_path, "dit", "float32", weights) for weights in (name, "float32")}
    file, path = open_lora(path)
    loras = [Weighted(plan_lora(file, path, None, flat_parameters(ours), CONFIG), 1.0)]
    before, found = store[name](), load_merged(store[name], loras)
    expected = flat_parameters(load_merged(store["float32"], loras))
    changed = 0
    for layer, variable in flat_parameters(found).items():
        if not layer.endswith(".weight"):
            continue
        scale = flat_parameters(found)[f"{layer}_scale"].get_value()[..., None]
        kernel = expected[layer.removesuffix("weight") + "kernel"].get_value().swapaxes(1, 2)
        error = np.abs(variable.get_value().astype(np.float32) * scale - kernel)
        assert (error <= np.abs(kernel).max(-1, keepdims=True) / 12).all()
        same = variable.get_value() == flat_parameters(before)[layer].get_value()
        changed += not same.all()
    assert changed
