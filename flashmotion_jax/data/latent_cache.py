"""The latent cache: what training reads in place of pixels and text, in ArrayRecord shards.

    CACHE/shard_00000.array_record   one record a video, see `records.py`
    CACHE/shard_00000.json           settings, rows, bytes, sha256, rows left out with the reason
    CACHE/text.npz                   embeddings of "" and of the negative prompt
    CACHE/report.json                every row that was left out, with the reason
    CACHE/cache.json                 settings, totals, shards; where it is, the cache is whole

Which rows of the CSV a shard holds is fixed, so that processes and machines share the work without
talking, and a killed run goes on where it was. Everything appears by rename; a shard without its
.json is not there.

The latent of the first frame alone, with which sampling starts, is not stored: the VAE is causal,
so it is latent frame 0 of the video.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from grain.sources import ArrayRecordDataSource

from flashmotion_jax.config import from_dict
from flashmotion_jax.data.records import Record, record_from_bytes
from flashmotion_jax.runtime.errors import UserError

FORMAT = "flashmotion_jax latent cache"
VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What decides the content of a cache; a run with others is refused.

    Attributes:
      csv_sha256: of the CSV, whose order decides which shard a row is in.
      num_rows: of the CSV.
      videos_per_shard: rows of the CSV a shard covers, with those left out.
      num_frames: of a video.
      height: of a video, in pixels.
      width: of a video, in pixels.
      resize: how videos were brought to that size, "stretch" or "crop".
      latent_shape: (T, h, w, C).
      text_dim: width of an embedding.
      text_len: tokens at which captions were cut.
      dtype: of the stored arrays.
      vae_key: names the weights of the VAE.
      text_encoder_key: names the weights of the text encoder.
      text_dtype: in which the text encoder computed.
      negative_prompt: whose embedding is stored.
    """

    csv_sha256: str
    num_rows: int
    videos_per_shard: int
    num_frames: int
    height: int
    width: int
    resize: str
    latent_shape: tuple[int, ...]
    text_dim: int
    text_len: int
    dtype: str
    vae_key: str
    text_encoder_key: str
    text_dtype: str
    negative_prompt: str

    @property
    def num_shards(self) -> int:
        """Shards that hold all rows."""
        return -(-self.num_rows // self.videos_per_shard)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedFile:
    """A file of a cache as it was written: its name, records, size and hash."""

    name: str
    num_records: int
    num_bytes: int
    sha256: str

    def fault(self, folder: Path) -> str | None:
        """What is wrong with the file at a glance, without reading it."""
        path = folder / self.name
        if not path.is_file():
            return f"{path} is missing"
        if (size := path.stat().st_size) != self.num_bytes:
            return f"{path} has {size} bytes of {self.num_bytes}"
        return None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LatentCache:
    """A whole cache: a random-access source of `Record`s, safe to read from many threads.

    Attributes:
      path: its folder.
      settings: what it was made with.
      shards: its files of records, in order.
      num_rejected: rows of the CSV that were left out; `report.json` lists them.
      empty_text: embedding of the empty prompt, float32 `[text_len, D]`, zero past its tokens.
      negative_text: of the negative prompt, likewise.
      fingerprint: names the content; no two caches share one.
    """

    path: Path
    settings: CacheSettings
    shards: tuple[CachedFile, ...]
    num_rejected: int
    empty_text: np.ndarray = dataclasses.field(repr=False)
    negative_text: np.ndarray = dataclasses.field(repr=False)
    fingerprint: str

    @property
    def num_records(self) -> int:
        """Videos in the cache."""
        return sum(shard.num_records for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(T, h, w, C) of a video's latents."""
        return self.settings.latent_shape

    def __len__(self) -> int:
        return self.num_records

    def __getitem__(self, index: int) -> Record:
        """Reads a record.

        Raises:
          UserError: its bytes are damaged; the shard and the fix are named.
          IndexError: there are fewer records.
        """
        index = range(self.num_records)[index]
        try:
            return record_from_bytes(self._source[index])
        except (ValueError, RuntimeError) as error:  # ArrayRecord raises RuntimeError
            ends = list(itertools.accumulate(shard.num_records for shard in self.shards))
            shard = self.shards[bisect.bisect_right(ends, index)]
            raise UserError(
                f"record {index}, in {self.path / shard.name}, cannot be read ({error}); "
                f"{_how_to_repair(shard)}"
            ) from error

    @functools.cached_property
    def _source(self) -> ArrayRecordDataSource:
        # With its rows in brackets a shard is not opened before it is read.
        return ArrayRecordDataSource(
            [
                f"{self.path / shard.name}[0:{shard.num_records}]"
                for shard in self.shards
                if shard.num_records
            ]
        )


def open_cache(path: str | Path) -> LatentCache:
    """Opens a cache, and checks that all shards are there in their full size.

    Args:
      path: folder of `flashmotion cache`.

    Raises:
      UserError: it is no cache, not yet whole, or a file is missing or truncated.
    """
    path = Path(path)
    values = _read_cache_json(path)
    settings = from_dict(CacheSettings, values["settings"], str(path / "cache.json"))
    text_file, *shards = _files(values)
    for file in (text_file, *shards):
        if fault := file.fault(path):
            raise UserError(f"{fault}; {_how_to_repair(file)}")
    empty, negative = _read_text(path / "text.npz", settings.text_len)
    return LatentCache(
        path=path,
        settings=settings,
        shards=tuple(shards),
        num_rejected=values["num_rejected"],
        empty_text=empty,
        negative_text=negative,
        fingerprint=hashlib.sha256((path / "cache.json").read_bytes()).hexdigest(),
    )


def verify_cache(path: str | Path) -> tuple[Path, ...]:
    """Reads every file of a cache and compares it with its hash.

    Args:
      path: folder of `flashmotion cache`.

    Returns:
      The files that are missing, truncated or damaged.

    Raises:
      UserError: it is no cache, or not yet whole.
    """
    path = Path(path)
    return tuple(
        path / file.name
        for file in _files(_read_cache_json(path))
        if file.fault(path) or sha256(path / file.name) != file.sha256
    )


def _read_cache_json(path: Path) -> dict[str, Any]:
    file = path / "cache.json"
    if not file.is_file():
        state = "is not finished" if any(path.glob("shard_*.json")) else "is no latent cache"
        raise UserError(f"{path} {state}: no cache.json; run `flashmotion cache` to the end")
    values = read_json(file)
    if (values.get("format"), values.get("version")) != (FORMAT, VERSION):
        raise UserError(
            f"{file} is of format {values.get('format')!r}, version {values.get('version')!r}; "
            f"expected {FORMAT!r}, version {VERSION}: run `flashmotion cache` again"
        )
    return values


def _files(cache_json: dict[str, Any]) -> list[CachedFile]:
    """text.npz, then the shards."""
    return [CachedFile(**values) for values in (cache_json["text"], *cache_json["shards"])]


def _read_text(file: Path, length: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            empty, negative = arrays["empty"], arrays["negative"]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged ({error}); copy the cache again") from error
    return pad_text(empty, length), pad_text(negative, length)


def pad_text(text: np.ndarray, length: int) -> np.ndarray:
    """An embedding `[S, D]` as float32 `[length, D]`, with zeros at the end."""
    return np.pad(text.astype(np.float32), ((0, length - len(text)), (0, 0)))


def _how_to_repair(file: CachedFile) -> str:
    entry = Path(file.name).with_suffix(".json") if file.name != "text.npz" else file.name
    return (
        f"copy the cache again, or remove {entry} and cache.json and run `flashmotion cache` again"
    )


def sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a cache.

    Raises:
      UserError: it is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); remove it and run again") from error
