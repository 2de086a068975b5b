from __future__ import annotations

import argparse
import json
import pickle
import sys
import types
import zipfile
from pathlib import PosixPath

import ml_dtypes
import numpy as np
import pytest

from flashmotion_jax.converters import torch_file
from flashmotion_jax.converters.reader import read_file, read_weights
from flashmotion_jax.runtime.errors import UserError

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.arange(4).astype(ml_dtypes.bfloat16),
}


def assert_same(source, expected):
    assert source.keys() == expected.keys()
    for key, array in expected.items():
        assert (source[key].shape, source[key].dtype) == (array.shape, str(array.dtype))
        np.testing.assert_array_equal(source[key].read(), array, strict=True)


def test_safetensors(tmp_path, write_safetensors):
    write_safetensors(tmp_path / "x.safetensors", TENSORS)
    assert_same(read_file(tmp_path / "x.safetensors"), TENSORS)


def test_safetensors_of_the_library(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    file = tmp_path / "x.safetensors"
    save_file(
        {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4.0).bfloat16()},
        file,
        metadata={"format": "pt"},
    )
    assert_same(read_file(file), {"a": TENSORS["a.weight"], "b": TENSORS["b.weight"]})


def test_unknown_dtype_is_named_not_read(tmp_path, write_safetensors):
    write_safetensors(tmp_path / "x.safetensors", {"a": ((2,), "F4_NEW", b"a")})
    assert read_file(tmp_path / "x.safetensors")["a"].dtype == "F4_NEW"


def test_metadata_of_the_library(tmp_path):
    pytest.importorskip("safetensors")
    from safetensors.numpy import save_file

    save_file({"a": TENSORS["a.weight"]}, tmp_path / "x.safetensors", metadata={"rank": "4"})
    assert read_weights(tmp_path / "x.safetensors").metadata == {"rank": "4"}


@pytest.mark.parametrize("length", [0, 4, 30, -1])
def test_safetensors_cut_off(tmp_path, write_safetensors, length):
    file = tmp_path / "x.safetensors"
    write_safetensors(file, TENSORS)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"empty|no known format|truncated|[\d,]+ of [\d,]+ bytes"):
        read_file(file)


@pytest.mark.parametrize(
    "header",
    [
        b"{not json",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [true, 2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}}',
        b'{"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "more": 1}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}',
        b'{"__metadata__": 5}',
    ],
)
def test_safetensors_with_a_damaged_header(tmp_path, header):
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(ValueError, match=r"damaged header|header of .* is not JSON"):
        read_file(file)


def write_index(folder, weight_map):
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": weight_map}))
    return file


def test_index(tmp_path, write_safetensors):
    for number, (key, tensor) in enumerate(TENSORS.items()):
        write_safetensors(tmp_path / f"{number}.safetensors", {key: tensor})
    weight_map = {key: f"{number}.safetensors" for number, key in enumerate(TENSORS)}
    assert_same(read_file(write_index(tmp_path, weight_map)), TENSORS)


def test_index_with_a_missing_shard(tmp_path):
    with pytest.raises(ValueError, match=r"1\.safetensors is missing"):
        read_file(write_index(tmp_path, {"a": "1.safetensors"}))


def test_index_with_a_missing_tensor(tmp_path, write_safetensors):
    write_safetensors(tmp_path / "1.safetensors", TENSORS)
    file = write_index(tmp_path, {"a.weight": "1.safetensors", "c": "1.safetensors"})
    with pytest.raises(ValueError, match="names 1 tensors that no file holds, such as c;"):
        read_file(file)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_index_stays_in_its_folder(tmp_path, write_safetensors, name):
    (tmp_path / "inner" / "sub").mkdir(parents=True)
    write_safetensors(tmp_path / "secret.safetensors", TENSORS)
    write_safetensors(tmp_path / "inner" / "sub" / "x.safetensors", TENSORS)
    with pytest.raises(ValueError, match="which is not a file beside it"):
        read_file(write_index(tmp_path / "inner", {"a.weight": name}))


@pytest.mark.parametrize("text", ["[1, 2]", "{}", '{"weight_map": [1]}', '{"weight_map": {"": 1}}'])
def test_index_that_is_none(tmp_path, text):
    file = tmp_path / "x.safetensors.index.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"not (an index|a JSON object)"):
        read_file(file)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_file(tmp_path, is_zip, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch_file, "REMAP_BYTES", 1)  # maps it anew for each tensor
    content = {
        "generator": {"a.weight": torch.arange(6.0).reshape(3, 2).T},
        "b": {"weight": torch.arange(4.0).bfloat16()},
        "step": 7,
    }
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=is_zip)
    a = np.arange(6, dtype=np.float32).reshape(3, 2).T
    source = read_file(tmp_path / "x.pt")
    assert_same(source, {"generator.a.weight": a, "b.weight": TENSORS["b.weight"]})
    assert_same(source, {"generator.a.weight": a, "b.weight": TENSORS["b.weight"]})


class Malicious:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (exec, (f"open({str(self.file)!r}, 'w').close()",))


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_malicious_pickle_raises_and_does_not_run(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    proof = tmp_path / "proof"
    file = tmp_path / "x.pt"
    content = {"a": torch.zeros(2), "b": Malicious(proof)}
    torch.save(content, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=r"is not loaded.*could run code"):
        read_file(file)
    assert not proof.exists()
    torch.load(file, weights_only=False)  # it would have
    assert proof.exists()


def test_a_plain_malicious_pickle_raises(tmp_path):
    pytest.importorskip("torch")
    file = tmp_path / "x.pth"
    file.write_bytes(pickle.dumps(Malicious(tmp_path / "proof"), protocol=2))
    with pytest.raises(ValueError, match="is not loaded"):
        read_file(file)
    assert not (tmp_path / "proof").exists()


def test_torch_file_cut_off(tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match="truncated"):
        read_file(file)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.safetensors.index.json"])
def test_a_file_that_is_something_else_is_named(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=f"{name} is a Git LFS pointer, not .*: run `git lfs pull`"):
        read_file(file)


def test_a_shard_that_is_something_else_is_named(tmp_path):
    (tmp_path / "1.safetensors").write_text("<!DOCTYPE html><html>")
    with pytest.raises(UserError, match=r"1\.safetensors is a web page \(HTML\), not weights"):
        read_file(write_index(tmp_path, {"a": "1.safetensors"}))


def test_a_format_is_that_of_the_content_whatever_the_name(tmp_path, write_safetensors):
    write_safetensors(tmp_path / "x.ckpt", TENSORS)
    assert_same(read_file(tmp_path / "x.ckpt"), TENSORS)
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.arange(4.0)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"a file of torch, not weights.*ends in \.pt"):
        read_file(tmp_path / "x.safetensors")


def test_torch_file_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"")
    with pytest.raises(ImportError, match=r"flashmotion_jax\[convert\]"):
        read_file(tmp_path / "x.pt")


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def shared(depth):
    """Two to the power of `depth` paths through a few dictionaries."""
    value = {}
    for _ in range(depth):
        value = {"a": value, "b": value}
    return value


def itself():
    value = {}
    value["a"] = value
    return value


@pytest.mark.parametrize(
    "make", [lambda: shared(60), itself, lambda: nested(300)], ids=["shared", "itself", "deep"]
)
def test_dictionaries_that_have_too_many_paths(tmp_path, make):
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.zeros(2), "more": make()}, tmp_path / "x.pt")
    try:
        assert read_file(tmp_path / "x.pt").keys() == {"x"}
    except UserError as error:
        assert "too large or too deep" in str(error)


def test_a_tensor_that_repeats_one_value_is_not_read(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.zeros(1).expand(2**20, 2**20)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="more than the file"):
        read_file(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse_coo", "nested", "quantized", "meta", "complex64"])
def test_tensors_that_are_not_dense_floats_are_named(tmp_path, kind):
    torch = pytest.importorskip("torch")
    make = {
        "sparse_coo": lambda: torch.eye(3).to_sparse(),
        "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        "meta": lambda: torch.zeros(2, device="meta"),
        "complex64": lambda: torch.zeros(2, dtype=torch.complex64),
    }
    torch.save({"x": make[kind]()}, tmp_path / "x.pt")
    assert read_file(tmp_path / "x.pt")["x"].dtype == kind


@pytest.mark.parametrize("content", [5, None, "x", [1], {1: {None: 2}}])
def test_a_torch_file_without_tensors_is_empty(tmp_path, content):
    torch = pytest.importorskip("torch")
    torch.save(content, tmp_path / "x.pt")
    assert not read_file(tmp_path / "x.pt")


@pytest.mark.parametrize("name", [".", "..", "", "a" * 5000, "x.safetensors.index.json", 5, None])
def test_index_with_names_of_anything(tmp_path, name):
    with pytest.raises(UserError) as error:
        read_file(write_index(tmp_path, {"a": name}))
    assert len(str(error.value)) < 500


def test_a_compressed_archive_is_not_read(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.zeros(2**20)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as source,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UserError, match="torch did not write"):
        read_file(tmp_path / "y.pt")


def test_settings_of_other_libraries_are_left_out(tmp_path, monkeypatch):
    """A file of Lightning: none of the classes in it is imported when it is read."""
    torch = pytest.importorskip("torch")
    name = "lightning.fabric.utilities.data"
    module = types.ModuleType(name)

    class AttributeDict(dict):
        def __setstate__(self, state):
            raise AssertionError("code of the file ran")

    AttributeDict.__module__, AttributeDict.__qualname__ = name, "AttributeDict"
    module.AttributeDict = AttributeDict
    for part in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    content = {
        "state_dict": {"a": torch.arange(3.0)},
        "hyper_parameters": AttributeDict(rate=1, args=argparse.Namespace(out=PosixPath("/x"))),
        "callbacks": {"best": np.float64(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
    }
    torch.save(content, tmp_path / "x.ckpt")
    monkeypatch.delitem(sys.modules, name)
    assert_same(read_file(tmp_path / "x.ckpt"), {"state_dict.a": np.arange(3, dtype=np.float32)})
