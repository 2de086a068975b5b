"""A record of the latent cache: one video as bytes, and back.

The bytes are an uncompressed `.npz`, which any numpy reads; zip keeps a CRC-32 of each array, which
is checked whenever the array is read. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any, NamedTuple

import numpy as np

DTYPES = ("float16", "float32")


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
      ValueError: an array holds what is not finite, or becomes so in this dtype.
    """
    fields: dict[str, Any] = {name: np.array(getattr(record, name)) for name in ("id", "caption")}
    fields |= {name: _narrow(record, name, dtype) for name in _ARRAYS}
    buffer = io.BytesIO()
    np.savez(buffer, **fields)
    return buffer.getvalue()


def record_from_bytes(data: bytes) -> Record:
    """The record that `record_to_bytes` stored, with arrays in the dtype they were stored in.

    Raises:
      ValueError: the bytes are damaged.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            return Record(id=str(file["id"]), caption=str(file["caption"]), **arrays)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"a damaged record ({error})") from error


def _narrow(record: Record, name: str, dtype: str) -> np.ndarray:
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; expected one of {', '.join(DTYPES)}")
    array: np.ndarray = getattr(record, name)
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    if not np.isfinite(narrow).all():
        fix = "store the cache in float32" if np.isfinite(array).all() else "check the model"
        raise ValueError(
            f"{name} of {record.id} holds values up to {np.abs(array).max():g} that {dtype} cannot "
            f"hold; {fix}"
        )
    return narrow
