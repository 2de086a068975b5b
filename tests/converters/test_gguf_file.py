"""GGUF files that the package `gguf` writes."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.converters.reader import read_file, read_weights
from flashmotion_jax.runtime.errors import UserError

gguf = pytest.importorskip("gguf")
TYPES = gguf.GGMLQuantizationType


def write(file, tensors, fields=()):
    """Writes arrays, each with the type to quantize it to or the bytes of a type."""
    writer = gguf.GGUFWriter(file, "wan")
    for name, (array, kind) in tensors.items():
        data = array if array.dtype == np.uint8 else gguf.quants.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    for name, value in fields:
        writer.add_array(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_every_type_that_the_library_writes(tmp_path):
    array = np.random.default_rng(0).standard_normal((3, 64), np.float32)
    names = ("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1")
    file = write(tmp_path / "x.gguf", {name: (array, TYPES[name]) for name in names})
    for name, tensor in read_file(file).items():
        assert (tensor.shape, tensor.dtype) == ((3, 64), "float32")
        data = gguf.quants.quantize(array, TYPES[name])
        expected = gguf.quants.dequantize(data, TYPES[name])
        np.testing.assert_array_equal(tensor.read(), expected, name)
        np.testing.assert_allclose(tensor.read(), array, atol=0.4)


def test_q8_0_by_hand(tmp_path):
    row = np.zeros((1, 32), np.float32)
    row[0, :4] = 127, -63.5, 1, 0.4
    tensors = read_file(write(tmp_path / "x.gguf", {"a": (row, TYPES.Q8_0)}))
    np.testing.assert_array_equal(tensors["a"].read()[0, :4], [127, -64, 1, 0])


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quants(tmp_path, kind):
    """The library reads them and does not write them: bytes of scale one and no offset."""
    size, length = gguf.GGML_QUANT_SIZES[TYPES[kind]]
    data = np.random.default_rng(0).integers(0, 60, (2, length), np.uint8)
    tensors = read_file(write(tmp_path / "x.gguf", {"a": (data, TYPES[kind])}))
    assert tensors["a"].shape == (2, size)
    np.testing.assert_array_equal(tensors["a"].read(), gguf.quants.dequantize(data, TYPES[kind]))


def test_five_dimensions_and_an_original_shape(tmp_path):
    array = np.arange(4 * 48 * 4, dtype=np.float32).reshape(4, 48, 1, 2, 2)
    fields = [("comfy.gguf.orig_shape.flat", [4, 48, 1, 2, 2])]
    tensors = {"five": (array, TYPES.F32), "flat": (array.reshape(4, -1), TYPES.F32)}
    file = write(tmp_path / "x.gguf", tensors, fields)
    for tensor in read_file(file).values():
        np.testing.assert_array_equal(tensor.read(), array)
    assert read_weights(file).metadata["general.architecture"] == "wan"


@pytest.mark.parametrize("length", [5, 30, 200, -10])
def test_cut_off(tmp_path, length):
    array = np.ones((64, 64), np.float32)
    file = write(tmp_path / "x.gguf", {"a": (array, TYPES.Q8_0), "b": (array, TYPES.F32)})
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(UserError, match=r"truncated|damaged|no known format"):
        read_file(file)["b"].read()


def test_without_the_library(tmp_path, monkeypatch):
    file = write(tmp_path / "x.gguf", {"a": (np.ones((2, 32), np.float32), TYPES.F32)})
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ImportError, match=r"flashmotion_jax\[gguf\]"):
        read_file(file)


def test_a_length_beyond_the_end_ends_soon(tmp_path):
    """The package would go on behind the end of the file, for hours."""
    shapes = [("comfy.gguf.orig_shape.x", [8, 4, 8])]
    tensors = {"x": (np.zeros((8, 32), np.float32), TYPES.F32)}
    file = write(tmp_path / "x.gguf", tensors, shapes)
    content = file.read_bytes()
    assert read_file(file)["x"].shape == (8, 4, 8)
    place = content.index(b"orig_shape.x") + len(b"orig_shape.x") + 8
    for length in (2**28, 2**63, 2**64 - 1):
        file.write_bytes(content[:place] + length.to_bytes(8, "little") + content[place + 8 :])
        with pytest.raises(UserError, match="truncated or damaged"):
            read_file(file)
    for place in (8, 16):  # numbers of tensors and fields
        file.write_bytes(content[:place] + (2**40).to_bytes(8, "little") + content[place + 8 :])
        with pytest.raises(UserError, match="truncated or damaged"):
            read_file(file)


@pytest.mark.parametrize("shape", [[8, 4], [-8, -4, 8], ["8", "x"]])
def test_an_original_shape_of_other_values_is_damage(tmp_path, shape):
    tensors = {"x": (np.zeros((8, 32), np.float32), TYPES.F32)}
    file = write(tmp_path / "x.gguf", tensors, [("comfy.gguf.orig_shape.x", shape)])
    with pytest.raises(UserError, match="truncated or damaged"):
        read_file(file)
