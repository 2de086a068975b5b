"""Writing of safetensors files, whole or in shards, and of PyTorch files.

safetensors are streamed, one parameter in memory at a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .safetensors_file import DTYPES

#: Maximum size of a shard, unless a single parameter is larger.
SHARD_BYTES = 5 * 10**9

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Spec:
    """Key, shape and dtype of a tensor that is yet to be written."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write_shards(
    path: Path, groups: Sequence[Sequence[Spec]], arrays: Iterator[np.ndarray]
) -> None:
    """Writes one file, or several shards and an index.

    Args:
      path: Path of a single file; shards add their number before the suffix.
      groups: Tensors, grouped by the shard they must share.
      arrays: The tensors in the same order.
    """
    shards: list[list[Spec]] = [[]]
    for group in groups:
        size = sum(spec.num_bytes for spec in (*shards[-1], *group))
        if shards[-1] and size > SHARD_BYTES:
            shards.append([])
        shards[-1] += group
    if len(shards) == 1:
        write_safetensors(path, shards[0], arrays)
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = path.with_name(f"{path.stem}-{number:05}-of-{len(shards):05}.safetensors")
        write_safetensors(file, shard, arrays)
        weight_map |= {spec.key: file.name for spec in shard}
    total = sum(spec.num_bytes for shard in shards for spec in shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index, indent=2))


def write_safetensors(
    file: Path,
    specs: Sequence[Spec],
    arrays: Iterator[np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes one file, consuming as many `arrays` as there are `specs`."""
    header: dict[str, object] = {"__metadata__": metadata or {"format": "pt"}}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.num_bytes
        header[spec.key] = {
            "dtype": _NAMES[spec.dtype],
            "shape": spec.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data must start at a multiple of 8
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for spec, array in zip(specs, arrays):  # noqa: B905  # the next shard consumes the rest
            array = np.ascontiguousarray(array, np.dtype(spec.dtype))
            array.tofile(stream)


def write_torch(file: Path, specs: Sequence[Spec], arrays: Iterable[np.ndarray]) -> None:
    """Writes a `.pth` file, with all tensors in memory.

    Raises:
      ImportError: torch is not installed.
      OSError: The disk is full or not writable.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'{file.name} needs torch to be written; pip install "flashmotion_jax[convert]"'
        ) from error

    def tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
        array = np.ascontiguousarray(array, np.dtype(dtype))
        if dtype == "bfloat16":  # torch does not accept ml_dtypes
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    tensors = {
        spec.key: tensor(array, spec.dtype) for spec, array in zip(specs, arrays, strict=True)
    }
    try:
        torch.save(tensors, file)
    except RuntimeError as error:  # torch raises it for every failure to write
        raise OSError(f"{file} could not be written ({error})") from error
