"""Lazy reading of files of weights, by their content: safetensors, PyTorch, GGUF.

Each container has a reader of its own, which returns a `WeightFile`. `read_file` also undoes
quantization, and is what converters use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.file_formats import require_format
from flashmotion_jax.runtime.json_files import read_json_object

from .gguf_file import read_gguf
from .integrity import checked
from .quantized import dequantize
from .safetensors_file import read_safetensors
from .tensors import StateDict, Tensor, WeightFile
from .torch_file import read_torch

#: Bytes of the name of a file.
MAX_NAME = 255

#: Format, as `runtime.file_formats` calls it -> its reader.
READERS: Mapping[str, Callable[[Path], WeightFile]] = {
    "safetensors": read_safetensors,
    "torch": read_torch,
    "pickle": read_torch,
    "gguf": read_gguf,
}


def read_file(file: Path) -> StateDict:
    """Opens a file of weights, or all files that an index lists; 8-bit weights become floats.

    Raises:
      UserError: The file is missing, truncated, damaged, contains more than tensors, or is
        quantized in a way that is not supported.
      ImportError: It is a PyTorch or GGUF file and torch or gguf is not installed.
    """
    return dequantize(read_weights(file))


def read_weights(file: Path) -> WeightFile:
    """Opens a file of weights as it is, with its metadata.

    Raises:
      UserError: The file is missing, truncated, damaged, or contains more than tensors.
      ImportError: It is a PyTorch or GGUF file and torch or gguf is not installed.
    """
    if not file.is_file():
        raise UserError(f"{file} does not exist; expected a file of weights")
    if file.suffix == ".json":
        return _read_index(file)
    # By its content: safetensors are also found as .sft, .ckpt or .bin. But torch goes by the name.
    formats = ("safetensors",) if file.suffix == ".safetensors" else tuple(READERS)
    return _open(file, formats)


def _open(file: Path, formats: Sequence[str]) -> WeightFile:
    found = READERS[require_format(file, formats, "weights")](file)
    return WeightFile(checked(file, found.tensors), found.metadata)


def _read_index(file: Path) -> WeightFile:
    require_format(file, ("json",), "an index of safetensors")
    weight_map = read_json_object(file, "download it again").get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise UserError(f"{file} is not an index of safetensors; download it again")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard or len(shard.encode()) > MAX_NAME:
            raise UserError(f"{file} names {shard!r:.100}, which is not a file beside it")
        if not (file.parent / shard).is_file():
            raise UserError(f"{file.parent / shard} is missing; download it again")
        part = _open(file.parent / shard, ("safetensors",))
        tensors |= part.tensors
        metadata |= part.metadata
    if missing := sorted(weight_map.keys() - tensors.keys()):
        raise UserError(
            f"{file} names {len(missing)} tensors that no file holds, such as {missing[0]:.100}; "
            "download it again"
        )
    return WeightFile(tensors, metadata)
