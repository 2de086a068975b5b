from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.cli.convert import main
from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.converters import adapters
from flashmotion_jax.converters.mapping import make_entries
from helpers import tiny

CONFIGS = {
    "adapters/resnet": ResNetAdapterConfig(width=16),
    "adapters/controlnet": ControlNetConfig(input="trajectory"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("saved") / "model", SamplingConfig())


@pytest.fixture
def destination(saved, tmp_path):
    """A checkpoint with a DiT and no adapters."""
    folder = shutil.copytree(saved, tmp_path / "model")
    shutil.rmtree(folder / "adapters")
    return folder


def make_module(kind):
    abstract = components.abstract_module(kind, CONFIGS[kind], "float32", tiny.DIT)
    return tiny.random_weights(abstract)


def state_dict(kind, module):
    """The adapter under the first names of the table."""
    parameters = components.flat_parameters(module)
    rows = adapters.table(kind.removeprefix("adapters/"), CONFIGS[kind], tiny.DIT, {})
    return {
        key: np.ascontiguousarray(array)
        for entry in make_entries(parameters, rows)
        for key, array in entry.scatter(np.asarray(parameters[entry.target].get_value()))
    }


def convert(tmp_path, destination, tensors, write_safetensors, *options):
    write_safetensors(tmp_path / "adapter.safetensors", tensors)
    command = ["flashmotion", str(tmp_path / "adapter.safetensors"), str(destination)]
    return main([*command, "--dtype", "float32", *options])


def assert_loaded(destination, kind, module):
    loaded = components.load_component(destination, kind, "float32")
    found = components.flat_parameters(loaded)
    for name, variable in components.flat_parameters(module).items():
        np.testing.assert_array_equal(found[name].get_value(), variable.get_value())


def renamed(tensors, *pairs):
    for old, new in pairs:
        tensors = {key.replace(old, new): tensor for key, tensor in tensors.items()}
    return tensors


#: Names that other projects use: kind, what stands before every name, what is called otherwise.
DIALECTS = [
    ("adapters/resnet", "", []),
    ("adapters/resnet", "adapter.", [("zero_convs.", "proj_out.")]),
    (
        "adapters/resnet",
        "module.resnet_adapter.",
        [("stem.", "conv_in."), ("blocks.", "resnets."), ("zero_convs.", "controlnet_blocks.")],
    ),
    ("adapters/controlnet", "", []),
    ("adapters/controlnet", "model.control_adapter.", [("zero_convs.", "zero_linears.")]),
    (
        "adapters/controlnet",
        "module.controlnet.",
        [
            ("self_attn.q", "attn1.to_q"),
            ("self_attn.k", "attn1.to_k"),
            ("self_attn.v", "attn1.to_v"),
            ("self_attn.o", "attn1.to_out.0"),
            ("zero_convs.", "controlnet_blocks."),
        ],
    ),
]


@pytest.mark.parametrize(("kind", "prefix", "names"), DIALECTS)
def test_plausible_names(kind, prefix, names, destination, tmp_path, write_safetensors):
    module = make_module(kind)
    tensors = renamed(state_dict(kind, module), *names)
    tensors = {prefix + key: tensor for key, tensor in tensors.items()}
    assert convert(tmp_path, destination, tensors, write_safetensors) == 0
    assert components.read_component(destination, kind).config == CONFIGS[kind]
    assert_loaded(destination, kind, module)


@pytest.mark.parametrize("ones", [0, 1, 2, 3])
def test_projections_of_any_rank(ones, destination, tmp_path, write_safetensors):
    module = make_module("adapters/resnet")
    tensors = {
        key: t[(..., *[None] * ones)] if key.startswith("zero") and t.ndim == 2 else t
        for key, t in state_dict("adapters/resnet", module).items()
    }
    assert convert(tmp_path, destination, tensors, write_safetensors) == 0
    assert_loaded(destination, "adapters/resnet", module)


def test_what_does_not_fit_is_all_named(destination, tmp_path, write_safetensors, capsys):
    tensors = renamed(
        state_dict("adapters/resnet", make_module("adapters/resnet")),
        ("conv2.bias", "second.bias"),
    )
    assert convert(tmp_path, destination, tensors, write_safetensors) == 2
    error = capsys.readouterr().err
    for layer in range(tiny.DIT.num_layers):
        assert f"missing: blocks.{layer}.conv2.bias (for blocks.conv2.bias)" in error
        assert f"unused: blocks.{layer}.second.bias" in error
    assert "inspect" in error
    assert "--map" in error
    assert not (destination / "adapters").exists()


def test_users_own_table(destination, tmp_path, write_safetensors):
    module = make_module("adapters/resnet")
    tensors = renamed(
        state_dict("adapters/resnet", module),
        ("conv2.", "second."),
        ("zero_convs.", "exits."),
    ) | {"freqs.0": np.zeros(3, np.float32)}
    names = {
        r"blocks\.conv2\.kernel": "blocks.{layer}.second.weight",
        "blocks.conv2.bias": "blocks.{layer}.second.bias",
        r"blocks\.projection\.(kernel)": "exits.{layer}.weight",
        r"blocks\.projection\.(bias)": r"exits.{layer}.\1",
        "ignore": [r"freqs\..*"],
    }
    (tmp_path / "map.json").write_text(json.dumps(names))
    options = ["--map", str(tmp_path / "map.json"), "--component", "resnet"]
    assert convert(tmp_path, destination, tensors, write_safetensors, *options) == 0
    assert_loaded(destination, "adapters/resnet", module)


def test_map_of_parameters_that_are_none(destination, tmp_path, write_safetensors, capsys):
    tensors = state_dict("adapters/resnet", make_module("adapters/resnet"))
    (tmp_path / "map.json").write_text('{"blocks.conv9.kernel": "x"}')
    options = ["--map", str(tmp_path / "map.json")]
    assert convert(tmp_path, destination, tensors, write_safetensors, *options) == 2
    assert "'blocks.conv9.kernel'; expected one of" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", ["resnet", "controlnet"])
def test_export_round_trip(name, suffix, saved, destination, tmp_path):
    if suffix == ".pt":
        pytest.importorskip("torch")
    file = tmp_path / f"exported{suffix}"
    assert main(["export", str(saved), str(file), "--adapter", name]) == 0
    assert main(["flashmotion", str(file), str(destination), "--dtype", "float32"]) == 0
    kind = f"adapters/{name}"
    assert_loaded(destination, kind, components.load_component(saved, kind, "float32"))


def test_export_to_an_unknown_suffix(saved, tmp_path, capsys):
    assert main(["export", str(saved), str(tmp_path / "x"), "--adapter", "resnet"]) == 2
    assert "no known suffix" in capsys.readouterr().err


def test_adapter_for_the_published_dit_needs_no_checkpoint(tmp_path, write_safetensors, capsys):
    """Without a DiT in DST the sizes are those of Wan2.2-TI2V-5B, which these are not."""
    tensors = state_dict("adapters/resnet", make_module("adapters/resnet"))
    assert convert(tmp_path, tmp_path / "new", tensors, write_safetensors) == 2
    assert "zero_convs.0.weight is (48, 16), expected (3072, 16)" in capsys.readouterr().err
