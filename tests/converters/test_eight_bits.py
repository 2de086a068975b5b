"""Import to 8 bits and export from 8 bits: what a file has in our format stays as it is."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DiTConfig
from flashmotion_jax.converters import dit
from flashmotion_jax.converters.exporting import open_tensors
from flashmotion_jax.converters.importing import convert_file
from flashmotion_jax.converters.inspection import inspect
from flashmotion_jax.converters.mapping import make_entries
from flashmotion_jax.converters.writer import Spec, write_safetensors
from helpers import tiny

CONFIG = DiTConfig(dim=128, num_heads=1, ffn_dim=64, num_layers=2, text_dim=16)
KEPT, ROUNDED = "blocks.{}.ffn.0", "blocks.{}.ffn.2"


@pytest.fixture(scope="module")
def tensors():
    """A DiT in the original layout, one of whose layers is in scaled float8 in all blocks."""
    parameters = components.flat_parameters(tiny.make_dit(CONFIG))
    tensors = {
        key: np.asarray(array, ml_dtypes.bfloat16)
        for entry in make_entries(parameters, dit.table(CONFIG, "original"))
        for key, array in entry.scatter(np.asarray(parameters[entry.target].get_value()))
    }
    for block in range(CONFIG.num_layers):
        weight = tensors[f"{KEPT.format(block)}.weight"].astype(np.float32)
        scale = np.float32(0.01 * (1 + block))
        tensors[f"{KEPT.format(block)}.weight"] = (weight / scale).astype(ml_dtypes.float8_e4m3fn)
        tensors[f"{KEPT.format(block)}.scale_weight"] = scale
    return tensors


@pytest.fixture
def file(tensors, tmp_path):
    specs = [Spec(key, array.shape, str(array.dtype)) for key, array in tensors.items()]
    path = tmp_path / "wan.safetensors"
    write_safetensors(path, specs, iter(tensors.values()))
    return path


@pytest.mark.parametrize("dtype", ["int8", "fp8"])
def test_import_inspect_and_export(file, tensors, tmp_path, dtype):
    out = tmp_path / "out"
    assert f"wrote dit ({dtype})" in convert_file(str(file), out, dtype=dtype, overwrite=False)
    assert f"({dtype})" in inspect(str(out), component=None, names=None).splitlines()[0]
    module = components.load_component(out, "dit", "float32")
    up = module.blocks.ffn.up
    if dtype == "fp8":
        for block in range(CONFIG.num_layers):
            stored = tensors[f"{KEPT.format(block)}.weight"]
            np.testing.assert_array_equal(np.asarray(up.weight[block]), stored)
            assert (up.weight_scale[block] == np.float32(0.01 * (1 + block))).all()
    component = components.read_component(out, "dit")
    exported = open_tensors(out, component, dit.table(CONFIG, "original"), None)
    specs = [spec for group in exported.specs() for spec in group]
    assert {spec.dtype for spec in specs} == {"bfloat16", "float32"}
    for spec, array in zip(specs, exported.arrays(), strict=True):
        expected = tensors[spec.key].astype(np.float32)
        if f"{spec.key.removesuffix('.weight')}.scale_weight" in tensors:
            expected *= tensors[f"{spec.key.removesuffix('.weight')}.scale_weight"]
        largest = np.abs(expected).max(-1, keepdims=True)
        assert (np.abs(array.astype(np.float32) - expected) <= largest / 15 + 1e-6).all(), spec.key
