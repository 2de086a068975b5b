"""The latent cache that training reads instead of pixels and text, in ArrayRecord shards.

    CACHE/shard_00000.array_record   one record per video, see `records.py`
    CACHE/shard_00000.json           settings, size, sha256, and rejected rows with the reasons
    CACHE/text.npz                   embeddings of the empty and the negative prompt
    CACHE/report.json                all rejected rows with the reasons
    CACHE/cache.json                 settings, totals, shards; written when the cache is complete

The shard of each CSV row is fixed, so processes and machines share the work without communicating,
and an interrupted run resumes where it stopped. Files are written under another name and renamed; a
shard without its .json file counts as missing.

The latent of the first image, which sampling starts from, is not stored separately: because the VAE
is causal, it is latent frame 0 of the video.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import io
import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from grain.sources import ArrayRecordDataSource

from flashmotion_jax.config import from_dict
from flashmotion_jax.data.records import Record, record_from_bytes
from flashmotion_jax.runtime.checksums import read_json
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.hashing import file_sha256

FORMAT = "flashmotion_jax latent cache"
VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Settings that determine the content of a cache.

    Attributes:
      csv_sha256: SHA-256 of the CSV, whose order determines the shard of each row; the fingerprint
        of drawn clips.
      num_rows: Number of rows of the CSV, or of clips.
      videos_per_shard: Number of CSV rows per shard, including rejected ones.
      num_frames: Frames per video.
      height: Height of the videos, in pixels.
      width: Width of the videos, in pixels.
      resize: How videos were resized, "stretch" or "crop".
      latent_shape: (T, h, w, C).
      text_dim: Width of the text embeddings.
      text_len: Length that captions were truncated to, in tokens.
      dtype: Dtype of the stored arrays.
      vae_key: Identifies the weights of the VAE.
      text_encoder_key: Identifies the weights of the text encoder.
      text_dtype: Compute dtype of the text encoder.
      negative_prompt: The prompt whose embedding is stored.
      maps: Kinds of trajectory maps, as `records.map_name` has them.
      point_sigma: Standard deviation of points, as a fraction of the shorter side; None without
        points.
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
    maps: tuple[str, ...] = ("mask", "box")
    point_sigma: float | None = None

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_rows // self.videos_per_shard)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedFile:
    """A file of a cache: name, number of records, size and hash when it was written."""

    name: str
    num_records: int
    num_bytes: int
    sha256: str

    def problem(self, folder: Path) -> str | None:
        """Returns what is wrong with the file, judged without reading it; None if nothing is."""
        path = folder / self.name
        if not path.is_file():
            return f"{path} is missing"
        if (size := path.stat().st_size) != self.num_bytes:
            return f"{path} has {size} bytes of {self.num_bytes}"
        return None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LatentCache:
    """A complete cache: a random-access source of `Record`s that is safe to read from threads.

    Attributes:
      path: Folder of the cache.
      settings: Settings that it was written with.
      shards: Files with the records, in order.
      num_rejected: Number of CSV rows that were rejected; `report.json` lists them.
      empty_text: Embedding of the empty prompt, float32 `[text_len, D]`, zero after its tokens.
      negative_text: Embedding of the negative prompt, likewise.
      fingerprint: Identifies the content.
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
        """Number of videos in the cache."""
        return sum(shard.num_records for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Size of all shards, in bytes."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape (T, h, w, C) of a video's latents."""
        return self.settings.latent_shape

    def __len__(self) -> int:
        return self.num_records

    def __getitem__(self, index: int) -> Record:
        """Reads a record.

        Raises:
          UserError: The record is damaged; the message names its shard and how to repair it.
          IndexError: The index is out of range.
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
        # With the range of records in brackets, a shard is opened only when it is read.
        return ArrayRecordDataSource(
            [
                f"{self.path / shard.name}[0:{shard.num_records}]"
                for shard in self.shards
                if shard.num_records
            ]
        )


def open_cache(path: str | Path) -> LatentCache:
    """Opens a cache and checks that all shards exist with their full size.

    Args:
      path: Folder written by `flashmotion cache`.

    Raises:
      UserError: The folder is not a complete cache, or a file is missing or truncated.
    """
    path = Path(path)
    values = _read_cache_json(path)
    settings = from_dict(CacheSettings, values.get("settings"), str(path / "cache.json"))
    text_file, *shards = _files(values, path / "cache.json")
    for file in (text_file, *shards):
        if problem := file.problem(path):
            raise UserError(f"{problem}; {_how_to_repair(file)}")
    empty, negative = _read_text(path / "text.npz", settings.text_len)
    return LatentCache(
        path=path,
        settings=settings,
        shards=tuple(shards),
        num_rejected=values.get("num_rejected", 0),
        empty_text=empty,
        negative_text=negative,
        fingerprint=file_sha256(path / "cache.json"),
    )


def verify_cache(path: str | Path) -> tuple[Path, ...]:
    """Reads every file of a cache and compares its hash.

    Args:
      path: Folder written by `flashmotion cache`.

    Returns:
      The files that are missing, truncated or damaged.

    Raises:
      UserError: The folder is not a complete cache.
    """
    path = Path(path)
    return tuple(
        path / file.name
        for file in _files(_read_cache_json(path), path / "cache.json")
        if file.problem(path) or file_sha256(path / file.name) != file.sha256
    )


def _read_cache_json(path: Path) -> dict[str, Any]:
    file = path / "cache.json"
    if not file.is_file():
        state = "is incomplete" if any(path.glob("shard_*.json")) else "is not a latent cache"
        raise UserError(f"{path} {state}: no cache.json; run `flashmotion cache` to completion")
    values = read_json(file, "remove it and run again")
    if (values.get("format"), values.get("version")) != (FORMAT, VERSION):
        raise UserError(
            f"{file} has format {values.get('format')!r}, version {values.get('version')!r}; "
            f"expected {FORMAT!r}, version {VERSION}: run `flashmotion cache` again"
        )
    return values


def _files(cache_json: dict[str, Any], file: Path) -> list[CachedFile]:
    """Returns the entries of text.npz and of the shards."""
    shards = cache_json.get("shards")
    entries = [cache_json.get("text"), *(shards if isinstance(shards, list) else [shards])]
    return [from_dict(CachedFile, values, str(file)) for values in entries]


def _read_text(file: Path, length: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            empty, negative = arrays["empty"], arrays["negative"]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged ({error}); copy the cache again") from error
    return pad_text(empty, length), pad_text(negative, length)


def pad_text(text: np.ndarray, length: int) -> np.ndarray:
    """Zero-pads an embedding `[S, D]` to float32 `[length, D]`."""
    return np.pad(text.astype(np.float32), ((0, length - len(text)), (0, 0)))


def _how_to_repair(file: CachedFile) -> str:
    entry = Path(file.name).with_suffix(".json") if file.name != "text.npz" else file.name
    return (
        f"copy the cache again, or remove {entry} and cache.json and run `flashmotion cache` again"
    )
