"""Reading of npz files: whole, and checked, whatever their headers say."""

from __future__ import annotations

import errno
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.errors import UserError


def read_npz(
    file: Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """Reads the arrays of an npz file, and compares all of its contents with their CRCs.

    Args:
      file: The file.
      wanted: Whether an array is read, by its name.

    Raises:
      UserError: The file is damaged, or holds objects of Python.
      OSError: The file cannot be opened.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the CRC of {damaged} is another")
            return {
                name.removesuffix(".npy"): _read_member(archive, name)
                for name in archive.namelist()
                if wanted(name.removesuffix(".npy"))
            }
    except Exception as error:  # NumPy parses a header as Python, and raises what that raises
        # zipfile looks for parts at negative positions.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise UserError(f"{file} is damaged ({str(error)[:200]})") from error


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    size = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        shape, dtype = _read_header(stream)
    # NumPy would take the memory first.
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} has the shape {shape} in {size} bytes")
    with archive.open(name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_header(stream: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = read[version](stream)
    return shape, dtype
