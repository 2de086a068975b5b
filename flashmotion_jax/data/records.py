"""Records of the latent cache: serialization of one video.

A record is an uncompressed zip: `record.json` has the id, the caption, and the dtype and shapes of
the arrays, which are stored next to it as little-endian bytes. The zip's CRC-32 of each entry is
checked on every read.

It is not an `.npz` because threads read records: numpy parses array headers with `ast`, which is
not thread-safe in CPython 3.11 (SystemError: "AST constructor recursion depth mismatch").
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json

#: Dtype name -> stored numpy dtype.
DTYPES = {"float16": "<f2", "float32": "<f4"}


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """A video in the form that the models take it.

    Attributes:
      id: Id of the video.
      caption: Caption of the video.
      latents: Latents of the video, `[T, h, w, C]`.
      maps: Kind of its trajectory maps -> their latents, of the same shape; see `map_name`.
      text: Embedding of the caption, `[S, D]`, without padding.
    """

    id: str
    caption: str
    latents: np.ndarray
    maps: Mapping[str, np.ndarray]
    text: np.ndarray

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by the name that they are stored under."""
        maps = {_STORED.get(kind, kind): array for kind, array in self.maps.items()}
        return {"latents": self.latents, **maps, "text": self.text}


#: Kinds of maps that are stored under another name.
_STORED = {"mask": "masks", "box": "boxes"}
_KINDS = {name: kind for kind, name in _STORED.items()}


def map_name(map_kind: str, single_frames: bool = False) -> str:
    """Returns the key in `Record.maps` of a kind of maps.

    Args:
      map_kind: One of `config.CachedMapKind`.
      single_frames: Whether each latent frame is of one map, which is encoded alone.
    """
    return f"{map_kind}_frames" if single_frames else map_kind


def record_to_bytes(record: Record, dtype: str) -> bytes:
    """Serializes a record.

    Args:
      record: The record, with arrays of any float dtype.
      dtype: Dtype to store arrays in, "float16" or "float32".

    Raises:
      UserError: An array has values that are not finite, or not in the range of `dtype`.
    """
    arrays = {name: _narrow(record, name, dtype) for name in record.arrays}
    header = {
        "id": record.id,
        "caption": record.caption,
        "dtype": dtype,
        "shapes": {name: array.shape for name, array in arrays.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        # ZipInfo has a fixed date, so that equal records have equal bytes.
        file.writestr(zipfile.ZipInfo("record.json"), json.dumps(header))
        for name, array in arrays.items():
            file.writestr(zipfile.ZipInfo(name), array.tobytes())
    return buffer.getvalue()


def record_from_bytes(data: bytes) -> Record:
    """Deserializes a record, with arrays in their stored dtype.

    Raises:
      UserError: The bytes are damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            header = parse_json(file.read("record.json"), "record.json", "copy the cache again")
            dtype = np.dtype(DTYPES[header["dtype"]])
            arrays = {
                name: np.frombuffer(file.read(name), dtype).reshape(header["shapes"][name])
                for name in header["shapes"]
            }
            latents, text = arrays.pop("latents"), arrays.pop("text")
            maps = {_KINDS.get(name, name): array for name, array in arrays.items()}
            return Record(header["id"], header["caption"], latents, maps, text)
    except (ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"damaged record ({error})") from error


def _narrow(record: Record, name: str, dtype: str) -> np.ndarray:
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r}; expected one of {', '.join(DTYPES)}")
    array = record.arrays[name]
    with np.errstate(over="ignore"):
        narrow = array.astype(DTYPES[dtype])
    if not np.isfinite(narrow).all():
        fix = "store the cache in float32" if np.isfinite(array).all() else "check the model"
        raise UserError(
            f"{name} of {record.id} has values up to {np.abs(array).max():g}, which {dtype} cannot "
            f"represent; {fix}"
        )
    return narrow
