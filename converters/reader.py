"""Lazy reading of safetensors and PyTorch files.

safetensors files need no torch. `.pt` and `.pth` files do: torch memory-maps them, and with
`weights_only=True` it never runs code from a file.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax  # noqa: F401  # teaches numpy the name "bfloat16"
import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.file_formats import require_format

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

#: Pages of a mapped file count as memory of this process once they are read. After so many bytes
#: the file is mapped again, which releases them.
REMAP_BYTES = 2**29


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
      shape: Shape of the tensor.
      dtype: Name of its dtype in NumPy, or the file's own name where NumPy has none.
      read: Reads the array.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


StateDict = Mapping[str, Tensor]
"""Key -> tensor that is read on demand, of one or several files."""


def read_file(file: Path) -> StateDict:
    """Opens a safetensors or PyTorch file, or all files that an index lists.

    Raises:
      UserError: The file is missing, truncated, damaged, or contains more than tensors.
      ImportError: It is a PyTorch file and torch is not installed.
    """
    if not file.is_file():
        raise UserError(f"{file} does not exist; expected a file of weights")
    if file.suffix == ".json":
        return _read_index(file)
    # By its content: safetensors are also found as .sft, .ckpt or .bin. But torch goes by the name.
    formats = ("safetensors", *(() if file.suffix == ".safetensors" else ("torch", "pickle")))
    if require_format(file, formats, "weights") == "safetensors":
        return _read_safetensors(file)
    return _read_torch(file)


def _read_index(file: Path) -> StateDict:
    require_format(file, ("json",), "an index of safetensors")
    try:
        weight_map = dict(json.loads(file.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not an index of safetensors; download it again") from error
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise UserError(f"{file} names {shard!r}, which is not a file beside it")
        if not (file.parent / shard).is_file():
            raise UserError(f"{file.parent / shard} is missing; download it again")
        require_format(file.parent / shard, ("safetensors",), "weights")
        tensors |= _read_safetensors(file.parent / shard)
    if missing := sorted(weight_map.keys() - tensors.keys()):
        raise UserError(f"{file} names tensors that no file holds: {', '.join(missing)}")
    return tensors


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_size = int.from_bytes(stream.read(8), "little")
        if not 2 <= header_size <= size - 8:
            raise UserError(f"{file} is truncated or not a safetensors file; download it again")
        try:
            header = json.loads(stream.read(header_size))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            tensors = {
                key: _safetensor(file, 8 + header_size, **entry) for key, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} has a damaged header; download it again") from error
    if size != 8 + header_size + end:
        raise UserError(
            f"{file} has {size:,} of {8 + header_size + end:,} bytes; download it again"
        )
    return tensors


def _safetensor(
    file: Path, start: int, dtype: str, shape: list[int], data_offsets: list[int]
) -> Tensor:
    begin, end = data_offsets
    name = DTYPES.get(dtype, dtype)
    count = math.prod(shape)
    if dtype in DTYPES and (begin < 0 or end - begin != count * np.dtype(name).itemsize):
        raise UserError("the size of a tensor is not that of its shape")

    def read() -> np.ndarray:
        return np.fromfile(file, np.dtype(name), count, offset=start + begin).reshape(shape)

    return Tensor(tuple(shape), name, read)


def _read_torch(file: Path) -> StateDict:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'{file.name} needs torch to be read; pip install "flashmotion_jax[convert]"'
        ) from error

    is_zip = zipfile.is_zipfile(file)

    def load() -> dict[str, torch.Tensor]:
        # Files from before torch 1.6 are not zip files and cannot be mapped.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
        return _flatten(content, torch.Tensor)

    try:
        mapped = _Remapped(load)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} is not loaded: it is damaged, or holds more than tensors, which could run "
            "code; ask its author for safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{file} is damaged or not a torch file; download it again") from error
    return {
        key: Tensor(
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            lambda key=key: mapped.read(key),
        )
        for key, tensor in mapped.tensors.items()
    }


class _Remapped:
    """A mapped file that is mapped again before the pages that were read fill the memory."""

    def __init__(self, load: Callable[[], dict[str, Any]]):
        self._load = load
        self._bytes_read = 0
        self.tensors = load()

    def read(self, key: str) -> np.ndarray:
        if self._bytes_read > REMAP_BYTES:
            self.tensors = self._load()
            self._bytes_read = 0
        tensor = self.tensors[key].detach()
        self._bytes_read += tensor.nbytes
        if str(tensor.dtype) == "torch.bfloat16":
            import torch

            return tensor.contiguous().view(torch.int16).numpy().view("bfloat16").copy()
        return tensor.numpy().copy()


def _flatten(content: Any, tensor_type: type, prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries to dotted keys; drops values that are not tensors."""
    if isinstance(content, tensor_type):
        return {prefix.removesuffix("."): content}
    if not isinstance(content, Mapping):
        return {}
    return {
        key: tensor
        for name, value in content.items()
        for key, tensor in _flatten(value, tensor_type, f"{prefix}{name}.").items()
    }
