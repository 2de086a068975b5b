"""Tensors to files: safetensors as a stream, in shards, and torch files.

The stream holds one of our parameters at a time, so that a model never is in memory as a whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .reader import DTYPES

#: A shard is closed before the parameter that would make it larger.
SHARD_BYTES = 5 * 10**9

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Spec(NamedTuple):
    """A tensor that is still to come."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size in a file."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write_shards(
    path: Path, groups: Sequence[Sequence[Spec]], arrays: Iterator[np.ndarray]
) -> None:
    """Writes one file, or several with an index beside them.

    Args:
      path: of a single file; shards put their number before the suffix.
      groups: tensors that stay in one shard.
      arrays: the tensors in the same order.
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


def write_safetensors(file: Path, specs: Sequence[Spec], arrays: Iterator[np.ndarray]) -> None:
    """Writes one file, taking as many `arrays` as there are `specs`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.num_bytes
        header[spec.key] = {
            "dtype": _NAMES[spec.dtype],
            "shape": spec.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that data begins at a multiple of 8
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for spec, array in zip(specs, arrays):  # noqa: B905  # the next shard takes the rest
            array = np.ascontiguousarray(array, np.dtype(spec.dtype))
            array.tofile(stream)


def write_torch(file: Path, specs: Sequence[Spec], arrays: Iterable[np.ndarray]) -> None:
    """Writes a `.pth` file, with all tensors in memory.

    Raises:
      ImportError: torch is not installed.
      OSError: the disk is full or not writable.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'{file.name} needs torch to be written; pip install "flashmotion_jax[convert]"'
        ) from error

    def tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
        array = np.ascontiguousarray(array, np.dtype(dtype))
        if dtype == "bfloat16":  # numpy's own kinds are all that torch takes
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    tensors = {
        spec.key: tensor(array, spec.dtype) for spec, array in zip(specs, arrays, strict=True)
    }
    try:
        torch.save(tensors, file)
    except RuntimeError as error:  # torch's word for any failure of its writer
        raise OSError(f"{file} could not be written ({error})") from error
