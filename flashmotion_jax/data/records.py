"""A record of the latent cache: one video as bytes, and back.

The bytes are an uncompressed zip: `record.json` says id, caption, and the arrays' dtype and shapes;
the arrays stand beside it as little-endian bytes. Zip keeps a CRC-32 of each, which is checked
whenever it is read.

It is no `.npz` because threads read records: numpy parses an array's header with `ast`, which
CPython 3.11 does not do safely in several threads (SystemError, "AST constructor recursion depth").
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import NamedTuple

import numpy as np

from flashmotion_jax.runtime.errors import UserError

#: Name to how it is stored.
DTYPES = {"float16": "<f2", "float32": "<f4"}


class Record(NamedTuple):
    """A video as the models see it.

    Attributes:
      id: of the video.
      caption: its text.
      latents: of the video, `[T, h, w, C]`.
      masks: latents of its mask maps, likewise.
      boxes: latents of its box maps, likewise.
      text: embedding of the caption, `[S, D]`, without padding.
    """

    id: str
    caption: str
    latents: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    text: np.ndarray


_ARRAYS = ("latents", "masks", "boxes", "text")


def record_to_bytes(record: Record, dtype: str) -> bytes:
    """A record as it is stored.

    Args:
      record: with arrays of any float dtype.
      dtype: to store them in, "float16" or "float32".

    Raises:
      UserError: an array holds what is not finite, or becomes so in this dtype.
    """
    arrays = {name: _narrow(record, name, dtype) for name in _ARRAYS}
    header = {
        "id": record.id,
        "caption": record.caption,
        "dtype": dtype,
        "shapes": {name: array.shape for name, array in arrays.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        # ZipInfo has a fixed date: the same record is always the same bytes.
        file.writestr(zipfile.ZipInfo("record.json"), json.dumps(header))
        for name, array in arrays.items():
            file.writestr(zipfile.ZipInfo(name), array.tobytes())
    return buffer.getvalue()


def record_from_bytes(data: bytes) -> Record:
    """The record that `record_to_bytes` stored, with arrays in the dtype they were stored in.

    Raises:
      UserError: the bytes are damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            header = json.loads(file.read("record.json"))
            dtype = np.dtype(DTYPES[header["dtype"]])
            arrays = {
                name: np.frombuffer(file.read(name), dtype).reshape(header["shapes"][name])
                for name in _ARRAYS
            }
            return Record(id=header["id"], caption=header["caption"], **arrays)
    except (ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"a damaged record ({error})") from error


def _narrow(record: Record, name: str, dtype: str) -> np.ndarray:
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r}; expected one of {', '.join(DTYPES)}")
    array: np.ndarray = getattr(record, name)
    with np.errstate(over="ignore"):
        narrow = array.astype(DTYPES[dtype])
    if not np.isfinite(narrow).all():
        fix = "store the cache in float32" if np.isfinite(array).all() else "check the model"
        raise UserError(
            f"{name} of {record.id} holds values up to {np.abs(array).max():g} that {dtype} cannot "
            f"hold; {fix}"
        )
    return narrow
