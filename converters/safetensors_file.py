"""Reading of safetensors, without a library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json

from .tensors import Tensor, WeightFile

#: Name of a dtype in the file -> in NumPy.
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors(file: Path) -> WeightFile:
    """Opens a file; its metadata are strings.

    Raises:
      UserError: The file is truncated or damaged.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_size = int.from_bytes(stream.read(8), "little")
        if not 2 <= header_size <= size - 8:
            raise UserError(f"{file} is truncated or not a safetensors file; download it again")
        content = stream.read(header_size)
        header = parse_json(content, f"the header of {file}", "download it again")
    if not isinstance(header, dict) or not all(isinstance(one, dict) for one in header.values()):
        raise UserError(f"{file} has a damaged header; download it again")
    metadata = header.pop("__metadata__", {})
    try:
        tensors = {key: _tensor(file, 8 + header_size, **entry) for key, entry in header.items()}
        end = _end_of_data(header)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} has a damaged header; download it again") from error
    if size != 8 + header_size + end:
        raise UserError(
            f"{file} has {size:,} of {8 + header_size + end:,} bytes; download it again"
        )
    return WeightFile(tensors, metadata)


def _end_of_data(header: Mapping[str, Any]) -> int:
    """Where the data end; raises ValueError for gaps and overlaps, which the format forbids."""
    end = 0
    for begin, stop in sorted(entry["data_offsets"] for entry in header.values()):
        if begin != end:
            raise ValueError(f"nothing is at {end}")
        end = stop
    return end


def _tensor(file: Path, start: int, dtype: str, shape: Any, data_offsets: Any) -> Tensor:
    begin, end = data_offsets
    # `True` would be a number, too.
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError("numbers are not positive integers")
    name = DTYPES.get(dtype, dtype)
    count = math.prod(shape)
    size = end - begin
    if size < 0 or (dtype in DTYPES and size != count * np.dtype(name).itemsize):
        raise ValueError("the size of a tensor is not that of its shape")

    def read() -> np.ndarray:
        return np.fromfile(file, np.dtype(name), count, offset=start + begin).reshape(shape)

    return Tensor(tuple(shape), name, read)
