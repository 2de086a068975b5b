"""A file is named by what its first bytes say it is, whatever its suffix."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.file_formats import recognize_format, require_format

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 9999466824\n"


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return stream.getvalue()


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))
    return stream.getvalue()


def saved(save, value):
    stream = io.BytesIO()
    save(stream, value)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "empty", "is empty, not weights: download it again"),
        (bytes(9000), "zeros", r"unfinished \(zeros in its first 4,096 bytes\).*download it again"),
        (LFS, "pointer", "a Git LFS pointer, not weights: run `git lfs pull`"),
        (b"# xet version 0\nfilesize = 7\n", "pointer", "a Xet pointer"),
        (b"/annex/objects/SHA256E-s7--0.pt\n", "pointer", "git annex get"),
        (b"\n<!DOCTYPE HTML>\n<title>Sign in", "html", r"web page \(HTML\).*direct address"),
        (b"\xef\xbb\xbf<html>", "html", "web page"),
        ("<html>".encode("utf-16"), "html", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "xml", "errors of servers"),
        (b'{"error": "Repository not found"}', "json", "JSON, not weights"),
        (b"Entry not found", "text", "text that begins 'Entry not found'"),
        ("modèle: 5\n".encode(), "text", "text that begins 'modèle: 5'"),
        (b"GGUF\3\0\0\0" + bytes(16), "gguf", r"GGUF.*give a \.safetensors"),
        (b"%PDF-1.7\n%\xe2\xe3", "pdf", "a PDF document"),
        (zipped("a/model.pt", "a/readme.md", "c"), "zip", r"zip archive of a/model\.pt, a/read"),
        (zipped(), "zip", "zip archive of nothing"),
        (zipped("data.pkl", "a.npy")[:-30], "zip", r"truncated.*download it again"),
        (zipped("x/data.pkl", "x/constants.pkl"), "torchscript", "TorchScript"),
        (zipped("arr_0.npy"), "npz", "NumPy archive"),
        (tarred(), "tar", "a tar archive.*unpack it"),
        (gzip.compress(b"weights", mtime=0), "gzip", "compressed with gzip"),
        (saved(np.save, np.zeros(3)), "npy", "a NumPy array"),
        (b"\x89PNG\r\n\x1a\n\0\0", "png", "a PNG image"),
        (b"\0\0\0\x20ftypisom", "mp4", "a video"),
        (b"\x89HDF\r\n\x1a\n\0", "hdf5", "HDF5"),
        (bytes(range(200, 256)), "unknown", r"no known format \(56 bytes, c8 c9"),
    ],
)
def test_a_file_is_described_with_what_to_do(tmp_path, content, name, message):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    assert recognize_format(file).name == name
    with pytest.raises(UserError, match=message) as error:
        require_format(file, ("safetensors", "torch"), "weights")
    assert str(file) in str(error.value) and len(str(error.value)) < 500
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ((2).to_bytes(8, "little") + b"{}", "safetensors"),
        (zipped("archive/data.pkl", "archive/data/0"), "torch"),
        (pickle.dumps({"a": 1}, protocol=2), "pickle"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
    ],
)
def test_weights_are_recognized(tmp_path, content, name):
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    assert require_format(file, (name,), "weights") == name
