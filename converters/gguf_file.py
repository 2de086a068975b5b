"""Reading of GGUF files by the package `gguf`; tensors are dequantized to float32.

Source: ggml `docs/gguf.md`; ComfyUI-GGUF for the tensors that it reshapes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.errors import UserError

from .tensors import Tensor, WeightFile

#: GGUF's number of a type of a field -> its bytes; and those of strings and of arrays.
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
#: Arrays within each other.
_MAX_DEPTH = 4

#: Field that holds the shape of a tensor before it was reshaped.
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."


def read_gguf(file: Path) -> WeightFile:
    """Opens a file; its metadata are the values of its fields, which are decoded on demand.

    Raises:
      UserError: The file is truncated or damaged, or has a tensor of an unknown type.
      ImportError: gguf is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            f'{file.name} needs gguf to be read; pip install "flashmotion_jax[gguf]"'
        ) from error
    try:
        _require_bounded(file)
        reader = gguf.GGUFReader(file)
        fields = _Fields(reader.fields)
        tensors = {tensor.name: _tensor(file, tensor, fields) for tensor in reader.tensors}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, OSError) as error:
        raise UserError(f"{file} is truncated or damaged ({error}); download it again") from error
    return WeightFile(tensors, fields)


def _require_bounded(file: Path) -> None:
    """Checks that all counts and lengths of the header end within the file.

    The package believes them: it would read on behind the end, for hours.

    Raises:
      ValueError: One does not, or a type of a field is unknown.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        version = stream.read(8)[4:]
        order = "little" if version[:2] != b"\0\0" else "big"

        def number(num_bytes: int) -> int:
            return int.from_bytes(stream.read(num_bytes), order)

        def skip(num_bytes: int, count: int = 1) -> None:
            if count * num_bytes > size - stream.tell():
                raise ValueError(f"a length at byte {stream.tell():,} is beyond its end")
            stream.seek(count * num_bytes, os.SEEK_CUR)

        def skip_value(kind: int, count: int = 1, depth: int = 0) -> None:
            if kind in _SCALAR_BYTES:
                skip(_SCALAR_BYTES[kind], count)
            elif kind in (_STRING, _ARRAY) and depth < _MAX_DEPTH:
                if count > size:
                    raise ValueError(f"{count:,} values")
                for _ in range(count):
                    if kind == _STRING:
                        skip(number(8))
                    else:
                        skip_value(number(4), number(8), depth + 1)
                    if stream.tell() >= size:
                        raise ValueError("its end is missing")
            else:
                raise ValueError(f"{kind} is not a type of a field")

        num_tensors, num_fields = number(8), number(8)
        if num_tensors + num_fields > size:
            raise ValueError(f"{num_tensors:,} tensors and {num_fields:,} fields")
        for _ in range(num_fields):
            skip_value(_STRING)
            skip_value(number(4))


class _Fields(Mapping[str, Any]):
    """The fields of a file: name -> value, decoded on demand, as tokenizers have long ones."""

    def __init__(self, fields: Mapping[str, Any]):
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name].contents()

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def _tensor(file: Path, tensor: Any, fields: Mapping[str, Any]) -> Tensor:
    from gguf import quants

    # ggml's order is the reverse of NumPy's. `data` has NumPy's; its last axis may be in bytes.
    shape = tuple(int(size) for size in reversed(tensor.shape))
    if (name := f"{_ORIGINAL_SHAPE}{tensor.name}") in fields:
        shape = tuple(int(size) for size in fields[name])
        if min(shape, default=1) < 0 or math.prod(shape) != tensor.n_elements:
            raise ValueError(f"{tensor.name} has {tensor.n_elements:,} values, not {list(shape)}")
    stored, dtype = tensor.data.shape, tensor.data.dtype
    kind, offset, count = tensor.tensor_type, int(tensor.data_offset), tensor.data.size

    def read() -> np.ndarray:
        # Not the mapped file, whose pages would count as memory of this process.
        data = np.fromfile(file, dtype, count, offset=offset).reshape(stored)
        try:
            return quants.dequantize(data, kind).reshape(shape)
        except NotImplementedError as error:
            raise UserError(
                f"{tensor.name} has the type {kind.name}, which gguf cannot dequantize; use a "
                "file of another type, such as Q8_0 or Q4_K"
            ) from error

    return Tensor(shape, "float32", read)
