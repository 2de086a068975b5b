"""Reading of `.pt`, `.pth` and `.ckpt` files by torch.

torch maps them into memory, and with `weights_only=True` it never runs code from a file. Objects of
some libraries, such as the settings that Lightning stores, become empty dictionaries.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.errors import UserError

from .tensors import Tensor, WeightFile

#: Libraries whose objects training code stores beside the weights.
SETTINGS = frozenset(
    (
        *("argparse", "collections", "datetime", "easydict", "lightning", "lightning_fabric"),
        *("ml_collections", "numpy", "omegaconf", "pathlib", "pytorch_lightning", "types"),
        *("typing", "yacs"),
    )
)

#: Pages of a mapped file count as memory of this process once they are read. After so many bytes
#: the file is mapped again, which releases them.
REMAP_BYTES = 2**29

#: Values in dictionaries; a published training checkpoint has some thousand.
MAX_VALUES = 1_000_000
_MAX_KEY = 10_000

#: A tensor that repeats its storage may be larger than a small file.
_SMALL_BYTES = 2**26

#: Dtypes of torch that have no counterpart in its conversion to NumPy -> one of the same size.
_SAME_SIZE = {"bfloat16": "int16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


def read_torch(file: Path) -> WeightFile:
    """Opens a file; nested dictionaries become dotted keys.

    Raises:
      UserError: The file is damaged, or contains more than tensors.
      ImportError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'{file.name} needs torch to be read; pip install "flashmotion_jax[convert]"'
        ) from error

    is_zip = zipfile.is_zipfile(file)
    if is_zip:
        _require_stored(file)

    def load() -> dict[str, torch.Tensor]:
        with torch.serialization.safe_globals(settings):
            # Files from before torch 1.6 are not zip files and cannot be mapped.
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
        return _flatten(content, torch.Tensor)

    try:
        settings: list[Any] = _find_settings(file) if is_zip else []
        mapped = _Remapped(load)
    except (OSError, UserError):
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} is not loaded: it is damaged, or holds more than tensors, which could run "
            "code; ask its author for safetensors"
        ) from error
    except Exception as error:  # torch's unpickler raises anything on damaged files
        raise UserError(f"{file} is damaged or not a torch file; download it again") from error
    _require_no_more_than(file, mapped.tensors)
    return WeightFile(
        {
            key: Tensor(_shape(tensor), _dtype(tensor), lambda key=key: mapped.read(key))
            for key, tensor in mapped.tensors.items()
        }
    )


class _Settings:
    """Stands for an object of another library: an empty dictionary, and none of its code."""

    def __new__(cls, *args: Any) -> Any:
        """Returns the dictionary, whatever the object would have been made of."""
        del args
        return OrderedDict()


class _Value:
    """Stands for a value of NumPy, whose parts are no dictionary."""

    def __init__(self, *args: Any):
        """Takes what the value would have been made of, and drops it."""

    def __setstate__(self, state: Any) -> None:
        """Likewise."""


def _find_settings(file: Path) -> list[tuple[type, str]]:
    """Returns what torch takes in place of the classes in a file that are of `SETTINGS`."""
    import torch

    names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    modules = {name: name.partition(".")[0] for name in names}
    return [
        (_Value if module == "numpy" else _Settings, name)
        for name, module in modules.items()
        if module in SETTINGS
    ]


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
        if same_size := _SAME_SIZE.get(_dtype(tensor)):
            import torch

            array = tensor.contiguous().view(getattr(torch, same_size)).numpy()
            return array.view(_dtype(tensor)).copy()
        return tensor.resolve_neg().numpy().copy()


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.is_nested else tuple(tensor.shape)


def _dtype(tensor: Any) -> str:
    """The dtype; of a tensor that is not dense, what it is instead, which no component accepts."""
    for kind in ("nested", "quantized", "meta"):
        if getattr(tensor, f"is_{kind}"):
            return kind
    is_dense = str(tensor.layout) == "torch.strided"
    return str(tensor.dtype if is_dense else tensor.layout).removeprefix("torch.")


def _require_stored(file: Path) -> None:
    """Checks that a zip archive holds no more than its size, as those of torch do."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    num_bytes = sum(entry.file_size for entry in entries)
    if num_bytes > file.stat().st_size or any(entry.compress_type for entry in entries):
        raise UserError(
            f"{file} is a zip archive that torch did not write ({num_bytes:,} bytes, compressed or "
            "overlapping); load and save it again with torch"
        )


def _require_no_more_than(file: Path, tensors: Mapping[str, Any]) -> None:
    """Checks the sizes of tensors, which may repeat their storage; small ones may be anything."""
    most = max(file.stat().st_size, _SMALL_BYTES)
    for key, tensor in tensors.items():
        shape = _shape(tensor)
        if math.prod(shape) * tensor.element_size() > most:
            raise UserError(
                f"{file} is damaged: {key[:80]} has the shape {list(shape)}, which is more than "
                "the file; download it again"
            )


def _flatten(content: Any, tensor_type: type) -> dict[str, Any]:
    """Flattens nested dictionaries to dotted keys; drops values that are not tensors.

    Raises:
      UserError: There are more values than `MAX_VALUES`, as if a dictionary contains itself.
    """
    tensors = {}
    rest, num_values = [("", content)], 0
    while rest:
        prefix, value = rest.pop()
        if isinstance(value, tensor_type):
            tensors[prefix.removesuffix(".")] = value
        elif isinstance(value, Mapping):
            num_values += len(value)
            if num_values > MAX_VALUES or len(prefix) > _MAX_KEY:
                raise UserError("the dictionaries of the file are too large or too deep")
            rest += [(f"{prefix}{name}.", value[name]) for name in reversed(list(value))]
    return tensors
