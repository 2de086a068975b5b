"""Arrays in npz files are as they were written, or the file is damaged; sizes are not believed."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest

from flashmotion_jax.runtime.array_files import read_npz
from flashmotion_jax.runtime.errors import UserError

ARRAYS = {
    "a/b": np.arange(200, dtype=np.float32),
    "text": np.array("snow \u2603"),
    "n": np.int64(3),
}


def write_member(file, header, data=bytes(64)):
    """Writes an npz file whose one array has any header."""
    text = header.encode() + b" " * (63 - (len(header) + 10) % 64) + b"\n"
    with zipfile.ZipFile(file, "w") as archive:
        content = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data
        archive.writestr("a.npy", content)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    save(tmp_path / "x.npz", **ARRAYS)
    found = read_npz(tmp_path / "x.npz")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
    assert read_npz(tmp_path / "x.npz", lambda name: name == "n").keys() == {"n"}


@pytest.mark.parametrize(
    "header",
    [
        *(
            f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
            for shape in (
                *("(1000000, 1000000)", "(1000000000000,)", "(-1,)", f"({10**30},)", "(1, 17)"),
                *("(16.0,)", "'16'", "None"),
            )
        ),
        "{'descr': '|O', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': 'x', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (17,)}",
        "[1, 2]",
        "(" * 300,
    ],
)
def test_a_header_that_lies_is_damage(tmp_path, header):
    write_member(tmp_path / "x.npz", header)
    with pytest.raises(UserError, match="is damaged") as error:
        read_npz(tmp_path / "x.npz")
    assert len(str(error.value)) < 500


def test_every_flipped_bit_of_an_array_is_damage(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, a=np.arange(30, dtype=np.float32))
    content = file.read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        try:
            found = read_npz(file)
        except UserError:
            continue
        np.testing.assert_array_equal(found["a"], np.arange(30))  # times and the like may differ


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", bytes(100)])
def test_what_is_no_archive_is_damage(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_npz(tmp_path / "x.npz")
