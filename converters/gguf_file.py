"""Reading of GGUF files by the package `gguf`; tensors are dequantized to float32.

Source: ggml `docs/gguf.md`; ComfyUI-GGUF for the tensors that it reshapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.errors import UserError

from .tensors import Tensor, WeightFile

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
        reader = gguf.GGUFReader(file)
        fields = _Fields(reader.fields)
        tensors = {tensor.name: _tensor(file, tensor, fields) for tensor in reader.tensors}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, OSError) as error:
        raise UserError(f"{file} is truncated or damaged ({error}); download it again") from error
    return WeightFile(tensors, fields)


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
