from __future__ import annotations

import collections

import jax
import numpy as np
import pytest

from examples import small_checkpoint
from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import ADAPTERS, DiTConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.converters import adapters, dit, text_encoder, vae
from flashmotion_jax.converters.mapping import (
    Row,
    find_bad_values,
    find_problems,
    make_entries,
    override,
)
from flashmotion_jax.converters.reader import Tensor


def entries_of(kind, config, rows, dit_config=None):
    module = components.abstract_module(kind, config, "float32", dit_config)
    return make_entries(components.flat_parameters(module), rows)


def shapes(entries):
    return {key: entry.source_shape for entry in entries for key in entry.keys}


def tensor(array):
    return Tensor(array.shape, str(array.dtype), lambda: array)


FULL_SIZE = {
    ("dit", "original"): 825,
    ("dit", "diffusers"): 825,
    ("vae", "original"): 196,
    ("vae", "diffusers"): 196,
    ("text_encoder", "original"): 242,
    ("text_encoder", "diffusers"): 242,
}


@pytest.mark.parametrize(("kind", "layout"), FULL_SIZE)
def test_tables_name_every_tensor_of_the_published_files_once(kind, layout):
    table = {"dit": dit, "vae": vae, "text_encoder": text_encoder}[kind]
    config = {"dit": DiTConfig(), "vae": VAEConfig(), "text_encoder": TextEncoderConfig()}[kind]
    entries = entries_of(kind, config, table.table(config, layout))
    counts = collections.Counter(key for entry in entries for key in entry.keys)
    assert len(counts) == FULL_SIZE[kind, layout]
    assert set(counts.values()) == {1}


@pytest.mark.parametrize(
    ("kind", "table", "config", "expected"),
    [
        ("dit", dit, small_checkpoint.DIT, small_checkpoint.dit_shapes),
        ("vae", vae, small_checkpoint.VAE, small_checkpoint.vae_shapes),
        ("text_encoder", text_encoder, small_checkpoint.TEXT, small_checkpoint.text_shapes),
    ],
)
def test_original_names_and_shapes(kind, table, config, expected):
    entries = entries_of(kind, config, table.table(config, "original"))
    assert shapes(entries) == dict(expected())


@pytest.mark.parametrize(
    ("kind", "folder", "table"),
    [
        ("dit", "transformer", dit),
        ("vae", "vae", vae),
        ("text_encoder", "text_encoder", text_encoder),
    ],
)
def test_diffusers_names_and_shapes(kind, folder, table, diffusers_models):
    model = diffusers_models[folder]
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    expected.pop("encoder.embed_tokens.weight", None)  # tied to `shared`
    values = dict(model.config.to_dict() if kind == "text_encoder" else model.config)
    config = table.read_config({}, values, "diffusers")
    assert shapes(entries_of(kind, config, table.table(config, "diffusers"))) == expected
    written = dit.write_config(config, "diffusers") if kind == "dit" else table.write_config(config)
    assert table.read_config({}, written, "diffusers") == config


@pytest.mark.parametrize("name", adapters.NAMES)
def test_adapter_names_are_unique(name):
    config = ADAPTERS[name].config()
    rows = adapters.table(name, config, DiTConfig(), {})
    entries = entries_of(f"adapters/{name}", config, rows, DiTConfig())
    keys = [key for entry in entries for key in entry.keys]
    assert len(set(keys)) == len(keys)


def test_axes_of_each_kind_of_parameter():
    rng = np.random.default_rng(0)
    table = [
        Row("linear", "linear"),
        Row("conv", "conv"),
        Row("video", "video"),
        Row("patch", "patch", dit.PATCH_LAYOUT, {"q": 2, "r": 3}),
        Row("point.{x}", "point.{x}.conv", vae.POINTWISE_3D),
        Row("gamma.scale", "gamma.gamma", "c -> c 1 1 1"),
        Row("stack.ffn", "stack.{layer}.ffn"),
        Row("stack.modulation", "stack.{layer}.modulation", "n d -> 1 n d"),
    ]
    theirs = {
        "linear.weight": rng.normal(size=(5, 4)),
        "conv.weight": rng.normal(size=(5, 4, 3, 2)),
        "video.weight": rng.normal(size=(5, 4, 1, 3, 2)),
        "patch.weight": rng.normal(size=(5, 4, 1, 2, 3)),
        "point.7.conv.weight": rng.normal(size=(5, 4, 1, 1, 1)),
        "point.7.conv.bias": rng.normal(size=5),
        "gamma.gamma": rng.normal(size=(4, 1, 1, 1)),
        **{f"stack.{i}.ffn.weight": rng.normal(size=(5, 4)) for i in range(3)},
        **{f"stack.{i}.modulation": rng.normal(size=(1, 6, 4)) for i in range(3)},
    }
    ours = {
        "linear.kernel": theirs["linear.weight"].T,
        "conv.kernel": np.transpose(theirs["conv.weight"], (2, 3, 1, 0)),
        "video.kernel": np.transpose(theirs["video.weight"], (2, 3, 4, 1, 0)),
        "patch.kernel": np.transpose(theirs["patch.weight"][:, :, 0], (2, 3, 1, 0)).reshape(24, 5),
        "point.7.kernel": theirs["point.7.conv.weight"][:, :, 0, 0, 0].T,
        "point.7.bias": theirs["point.7.conv.bias"],
        "gamma.scale": theirs["gamma.gamma"][:, 0, 0, 0],
        "stack.ffn.kernel": np.stack([theirs[f"stack.{i}.ffn.weight"].T for i in range(3)]),
        "stack.modulation": np.stack([theirs[f"stack.{i}.modulation"][0] for i in range(3)]),
    }
    parameters = {name: Variable(array) for name, array in ours.items()}
    source = {key: tensor(array) for key, array in theirs.items()}
    entries = make_entries(parameters, table)
    assert find_problems(entries, source) == []
    for entry in entries:
        np.testing.assert_array_equal(entry.gather(source), ours[entry.target], strict=True)
        for key, array in entry.scatter(ours[entry.target]):
            np.testing.assert_array_equal(array, theirs[key], strict=True)


class Variable:
    """What the engine asks of an abstract parameter."""

    def __init__(self, array):
        self._spec = jax.ShapeDtypeStruct(array.shape, np.dtype(array.dtype))

    def get_value(self):
        return self._spec


LINEAR = {"proj.kernel": Variable(np.zeros((4, 5), np.float32))}


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 1, 1), (5, 4, 1, 1, 1)])
def test_guessed_tables_follow_axes_of_length_one(shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    source = {"proj.weight": tensor(weight)}
    (entry,) = make_entries(LINEAR, [Row("proj", "proj")], source)
    assert find_problems([entry], source) == []
    np.testing.assert_array_equal(entry.gather(source), weight.reshape(5, 4).T)


def test_problems_are_all_named():
    entries = make_entries(
        {
            **LINEAR,
            "proj.bias": Variable(np.zeros(5, np.float32)),
            "norm.scale": Variable(np.zeros(5, np.float32)),
        },
        [Row("proj", "proj"), Row("norm", "norm")],
    )
    source = {
        "proj.weight": tensor(np.zeros((4, 5), np.float32)),
        "norm.weight": tensor(np.zeros(5, np.int64)),
        "extra": tensor(np.zeros(1, np.float32)),
        "known": tensor(np.zeros(1, np.float32)),
    }
    assert find_problems(entries, source, aliases=("known",)) == [
        "dtype: norm.weight is int64, expected one of float32, bfloat16, float16, float64",
        "missing: proj.bias (for proj.bias)",
        "shape: proj.weight is (4, 5), expected (5, 4)",
        "unused: extra",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value):
    (entry,) = make_entries(LINEAR, [Row("proj", "proj")])
    array = np.zeros((5, 4), np.float32)
    assert find_bad_values(entry, {"proj.weight": tensor(array)}) == []
    array[3, 2] = value
    assert find_bad_values(entry, {"proj.weight": tensor(array)}) == [
        "values: proj.weight holds NaN or infinity"
    ]


def test_users_names_go_first_and_keep_the_layout():
    parameters = {f"block.{i}.kernel": Variable(np.zeros((4, 5), np.float32)) for i in range(2)}
    table = [Row("block.{x}", "block.{x}", vae.POINTWISE_3D)]
    rows = override(parameters, table, {r"block\.(0)\.kernel": r"other.\1.w"})
    assert shapes(make_entries(parameters, rows)) == {
        "other.0.w": (5, 4, 1, 1, 1),
        "block.1.weight": (5, 4, 1, 1, 1),
    }
    with pytest.raises(ValueError, match=r"'nothing'; expected one of block\.0\.kernel"):
        override(parameters, table, {"nothing": "x"})


def test_parameter_without_a_row():
    with pytest.raises(ValueError, match=r"no row for proj\.kernel"):
        make_entries(LINEAR, [])
