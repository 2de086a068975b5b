"""8-bit weights, written by the libraries that others use, against values made by hand."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

from flashmotion_jax.converters.quantized import dequantize
from flashmotion_jax.converters.reader import read_file
from flashmotion_jax.converters.tensors import Tensor, WeightFile
from flashmotion_jax.runtime.errors import UserError

#: 50 and 100 have no float8: they round to 48 and 96.
STORED = np.array([[48, -96], [192, 448]], np.float32)
VALUE = np.array([[0.48, -0.96], [1.92, 4.48]], np.float32)
FP8 = STORED.astype(ml_dtypes.float8_e4m3fn)
SCALE = np.float32(0.01)


def weight_file(arrays, metadata=None):
    def tensor(array):
        return Tensor(array.shape, str(array.dtype), lambda: array)

    return WeightFile(
        {key: tensor(np.asarray(array)) for key, array in arrays.items()}, metadata or {}
    )


def read(arrays, metadata=None):
    tensors = dequantize(weight_file(arrays, metadata))
    return {key: tensor.read() for key, tensor in tensors.items()}


def description(values):
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


LAYOUTS = {
    "old": {"q.scale_weight": SCALE, "scaled_fp8": np.zeros(2, ml_dtypes.float8_e4m3fn)},
    "old, one axis, input": {
        "q.scale_weight": SCALE.reshape(1),
        "q.scale_input": SCALE,
        "model.scaled_fp8": np.zeros(0, ml_dtypes.float8_e4m3fn),
    },
    "new": {
        "q.weight_scale": SCALE,
        "q.input_scale": SCALE,
        "q.comfy_quant": description({"format": "float8_e4m3fn"}),
    },
    "rows": {"q.weight_scale": np.full((2, 1), SCALE)},
    "blocks": {"q.scale_weight": np.full((2, 2, 1), SCALE)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scaled_fp8(layout):
    plain = np.ones(2, np.float32)
    tensors = read({"q.weight": FP8, "q.bias": plain, **LAYOUTS[layout]})
    assert tensors.keys() == {"q.weight", "q.bias"}
    np.testing.assert_allclose(tensors["q.weight"], VALUE, rtol=1e-6)


def test_every_row_and_block_has_its_own_scale():
    rows = np.array([[0.01], [0.02]], np.float32)
    expected = STORED * rows
    np.testing.assert_allclose(
        read({"q.weight": FP8, "q.weight_scale": rows})["q.weight"], expected
    )
    np.testing.assert_allclose(
        read({"q.weight": FP8, "q.weight_scale": rows[:, 0]})["q.weight"], expected
    )
    blocks = np.array([[[0.01], [0.02]], [[0.03], [0.04]]], np.float32)
    np.testing.assert_allclose(
        read({"q.weight": FP8, "q.scale_weight": blocks})["q.weight"], STORED * blocks[..., 0]
    )


def test_int8():
    stored = np.array([[64, -127], [127, 96]], np.int8)
    scale = np.array([[0.5], [0.25]], np.float32)
    metadata = {"_quantization_metadata": '{"layers": {"q": {"format": "int8_tensorwise"}}}'}
    tensors = read({"q.weight": stored, "q.weight_scale": scale}, metadata)
    np.testing.assert_array_equal(tensors["q.weight"], [[32, -63.5], [31.75, 24]])


def test_float8_without_a_scale_is_a_value():
    np.testing.assert_array_equal(read({"q.weight": FP8})["q.weight"], STORED)


def test_a_layer_in_floats_keeps_its_weight_and_loses_its_input_scale():
    tensors = read({"q.weight": VALUE, "q.scale_input": SCALE, "p.weight": FP8})
    assert tensors.keys() == {"q.weight", "p.weight"}
    np.testing.assert_array_equal(tensors["q.weight"], VALUE)


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        ({"q.comfy_quant": description({"format": "mxfp8"})}, "mxfp8"),
        ({"q.comfy_quant": description({"format": "int8_tensorwise", "convrot": True})}, "convrot"),
        ({"q.weight_scale_2": SCALE}, "nvfp4"),
        ({"q.pre_quant_scale": SCALE}, "AWQ"),
        ({"q.qweight": SCALE}, "GPTQ"),
        ({"q.comfy_quant": np.frombuffer(b"[1]{", np.uint8)}, "damaged"),
        ({"q.weight_scale": np.ones(3, np.float32)}, "expected one value, one per row"),
    ],
)
def test_what_is_not_supported_is_named(tensors, name):
    with pytest.raises(UserError, match=name) as error:
        read({"q.weight": FP8, **tensors})
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_of_the_libraries(tmp_path, suffix):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {
        "q.weight": torch.from_numpy(STORED).to(torch.float8_e4m3fn),
        "q.scale_weight": torch.tensor(0.01),
        "scaled_fp8": torch.zeros(0).to(torch.float8_e4m3fn),
        "p.weight": torch.from_numpy(STORED).to(torch.float8_e5m2),
        "p.bias": torch.tensor([1.0]).bfloat16(),
    }
    file = tmp_path / f"x{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tensors, file)
    found = {key: tensor.read() for key, tensor in read_file(file).items()}
    assert found.keys() == {"q.weight", "p.weight", "p.bias"}
    np.testing.assert_allclose(found["q.weight"], VALUE, rtol=1e-6)
    np.testing.assert_array_equal(found["p.weight"], tensors["p.weight"].float().numpy())
