"""Bytes that differ from what was published are found where the disk says what that was."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest

from flashmotion_jax.converters.integrity import require_intact
from flashmotion_jax.converters.reader import read_file
from flashmotion_jax.runtime.errors import UserError

TENSOR = np.random.default_rng(0).standard_normal((64, 32), np.float32)


def flip(file):
    """Flips a bit in the middle, which is within the tensor."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def in_cache(folder, file):
    """The file as `hf download` stores it: a link to a blob named by its digest."""
    content = file.read_bytes()
    blob = folder / "models--a--b" / "blobs" / hashlib.sha256(content).hexdigest()
    link = folder / "models--a--b" / "snapshots" / "0123" / "x.safetensors"
    blob.parent.mkdir(parents=True)
    link.parent.mkdir(parents=True)
    blob.write_bytes(content)
    link.symlink_to(f"../../blobs/{blob.name}")
    return link


def in_folder(folder, file):
    """The file as `hf download --local-dir` stores it, with a note of its digest."""
    copy = folder / "sub" / "x.safetensors"
    note = folder / ".cache" / "huggingface" / "download" / "sub" / "x.safetensors.metadata"
    copy.parent.mkdir()
    note.parent.mkdir(parents=True)
    copy.write_bytes(file.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    note.write_text(f"{'0' * 40}\n{digest}\n{time.time() + 60}\n")
    return copy


@pytest.fixture
def file(tmp_path, write_safetensors):
    write_safetensors(tmp_path / "original.safetensors", {"x": TENSOR})
    return tmp_path / "original.safetensors"


@pytest.mark.parametrize("store", [in_cache, in_folder])
def test_a_flipped_bit_of_a_download_is_found_when_a_tensor_is_read(tmp_path, file, store):
    stored = store(tmp_path, file)
    np.testing.assert_array_equal(read_file(stored)["x"].read(), TENSOR)
    flip(stored)
    source = read_file(stored)
    with pytest.raises(UserError, match=r"is damaged: its SHA is not the .* download it again"):
        source["x"].read()


def test_a_file_that_was_edited_after_its_download_is_read(tmp_path, file):
    stored = in_folder(tmp_path, file)
    note = next(tmp_path.rglob("*.metadata"))
    lines = note.read_text().split()
    note.write_text("\n".join([*lines[:2], str(time.time() - 60)]))
    flip(stored)
    read_file(stored)["x"].read()


@pytest.mark.parametrize("note", ["", "nothing", "a\nb\nc", "\0\xff"])
def test_a_note_that_is_none_is_ignored(tmp_path, file, note):
    stored = in_folder(tmp_path, file)
    next(tmp_path.rglob("*.metadata")).write_text(note)
    read_file(stored)["x"].read()


def test_a_flipped_bit_of_a_torch_file_is_found_by_its_crc(tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "x.pth"
    torch.save({"x": torch.from_numpy(TENSOR)}, file)
    np.testing.assert_array_equal(read_file(file)["x"].read(), TENSOR)
    flip(file)
    source = read_file(file)
    with pytest.raises(UserError, match=r"is damaged: the CRC of x/data/0 in it is another"):
        source["x"].read()


def test_small_files_of_a_repository_are_checked_by_their_git_digest(tmp_path):
    content = b'{"dim": 3072}'
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    blob = tmp_path / "blobs" / digest
    blob.parent.mkdir()
    blob.write_bytes(content)
    require_intact(blob)
    flip(blob)
    with pytest.raises(UserError, match="is damaged: its SHA is not"):
        require_intact(blob)
