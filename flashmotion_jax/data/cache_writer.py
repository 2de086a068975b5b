"""Writing of the latent cache, safe with several processes and after interruptions.

Each process writes its shards. A process that finds all shards complete writes `cache.json`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from flashmotion_jax.config import from_dict, to_dict
from flashmotion_jax.data.latent_cache import (
    FORMAT,
    VERSION,
    CachedFile,
    CacheSettings,
    LatentCache,
    open_cache,
)
from flashmotion_jax.data.records import Record, record_to_bytes
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.checksums import read_json, write_json
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.hashing import file_sha256
from flashmotion_jax.runtime.lock import sole_writer
from flashmotion_jax.trajectory.formats.magicdata_csv import RowError

#: Groups of one video for random access; uncompressed because latents do not compress.
_WRITER_OPTIONS = "group_size:1,uncompressed"


def write_text(folder: Path, empty: np.ndarray, negative: np.ndarray) -> None:
    """Writes `text.npz`. Every process does so before writing its shards.

    Args:
      folder: Folder of the cache.
      empty: Embedding of the empty prompt without padding, `[S, D]`.
      negative: Embedding of the negative prompt without padding, `[S, D]`.
    """
    with replacing(folder / "text.npz") as scratch:
        np.savez(scratch, empty=np.float32(empty), negative=np.float32(negative))


def write_shard(
    folder: Path, number: int, settings: CacheSettings, rows: Iterable[Record | RowError]
) -> None:
    """Writes a shard, then its .json file.

    Args:
      folder: Folder of the cache.
      number: Number of the shard.
      settings: Settings of the cache.
      rows: For each row in the order of the CSV, a record or the reason why it was rejected.

    Raises:
      UserError: A record exceeds the range of the cache's dtype.
      OSError: The disk is full or not writable.
    """
    name = f"{_shard_name(number)}.array_record"
    rejected = []
    num_records = 0
    with sole_writer(folder / name, beside=True), replacing(folder / name) as scratch:
        with _disk_errors(folder / name):
            writer = ArrayRecordWriter(str(scratch), _WRITER_OPTIONS)
        try:
            for row in rows:
                if isinstance(row, RowError):
                    rejected.append(
                        {"row": row.row, "line": row.line, "id": row.id, "reason": row.reason}
                    )
                else:
                    data = record_to_bytes(row, settings.dtype)
                    with _disk_errors(folder / name):
                        writer.write(data)
                    num_records += 1
        finally:
            with _disk_errors(folder / name):
                writer.close()
        if _count_records(scratch) != num_records:
            raise OSError(f"{folder / name} was not written completely: is the disk full?")
        shard = _describe_file(scratch, num_records)
    _write_sealed(
        folder / f"{_shard_name(number)}.json",
        {"settings": to_dict(settings), "shard": to_dict(shard), "rejected": rejected},
    )


def has_shard(folder: Path, number: int, settings: CacheSettings) -> bool:
    """Returns whether a shard exists and has its full size.

    Raises:
      UserError: The shard was written with other settings.
    """
    return _read_shard(folder, number, settings) is not None


def finish_cache(folder: Path, settings: CacheSettings) -> LatentCache | None:
    """Completes the cache if all shards exist. Several processes may do so at the same time.

    Returns:
      The cache, or None if shards are missing.

    Raises:
      UserError: A shard was written with other settings, or the shards contain no video.
    """
    entries = [_read_shard(folder, number, settings) for number in range(settings.num_shards)]
    present = [entry for entry in entries if entry is not None]
    if len(present) < len(entries):
        return None
    rejected = [row for entry in present for row in entry["rejected"]]
    num_records = sum(entry["shard"]["num_records"] for entry in present)
    report = {"num_rows": settings.num_rows, "num_records": num_records, "rejected": rejected}
    with replacing(folder / "report.json") as scratch:
        text = json.dumps(report, indent=2, ensure_ascii=False)
        scratch.write_text(text + "\n", encoding="utf-8")
    if not num_records:
        raise UserError(
            f"none of the {settings.num_rows} rows could be cached; {folder / 'report.json'} gives "
            f"the reasons. Fix the data, remove {folder} and run again"
        )
    _write_sealed(
        folder / "cache.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "settings": to_dict(settings),
            "num_records": num_records,
            "num_bytes": sum(entry["shard"]["num_bytes"] for entry in present),
            "num_rejected": len(rejected),
            "text": to_dict(_describe_file(folder / "text.npz", 2)),
            "shards": [entry["shard"] for entry in present],
        },
    )
    for leftover in folder.glob(".shard_*"):  # from killed runs; no process is writing a shard now
        shutil.rmtree(leftover, ignore_errors=True)
    return open_cache(folder)


def require_same_settings(folder: Path, settings: CacheSettings) -> None:
    """Checks that a complete cache, if there is one, has the given settings.

    Raises:
      UserError: The settings differ; the message lists the differences.
    """
    if (folder / "cache.json").is_file():
        _read_entry(folder / "cache.json", settings)


def _read_shard(folder: Path, number: int, settings: CacheSettings) -> dict[str, Any] | None:
    """Reads the .json file of a shard; None if the shard is missing or incomplete."""
    file = folder / f"{_shard_name(number)}.json"
    if not file.is_file():
        return None
    entry = _read_entry(file, settings)
    shard = from_dict(CachedFile, entry.get("shard"), str(file))
    return None if shard.problem(folder) else entry


def _read_entry(file: Path, settings: CacheSettings) -> dict[str, Any]:
    """Reads a .json file, and checks that it was written with these settings."""
    fix = "remove it and run again"
    entry = read_json(file, fix)
    if not isinstance(entry.get("settings"), dict):
        raise UserError(f"{file} has no settings; {fix}")
    _require_same(file.parent, entry["settings"], settings)
    return entry


def _require_same(folder: Path, there: dict[str, Any], settings: CacheSettings) -> None:
    wanted = json.loads(json.dumps(to_dict(settings)))  # tuples as lists
    there = {"maps": ["mask", "box"], "point_sigma": None} | there  # not in older caches
    differing = [
        f"{name}={there.get(name)!r} (this run: {wanted.get(name)!r})"
        for name in sorted(there.keys() | wanted.keys())
        if there.get(name) != wanted.get(name)
    ]
    if differing:
        raise UserError(
            f"{folder} contains a cache with {', '.join(differing)}; choose another folder, or "
            "remove this one"
        )


def _shard_name(number: int) -> str:
    return f"shard_{number:05d}"


@contextmanager
def _disk_errors(path: Path) -> Generator[None, None, None]:
    """Converts exceptions of ArrayRecord to OSError, as other writers raise on a full disk."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def _count_records(path: Path) -> int:
    reader = ArrayRecordReader(str(path))
    try:
        return reader.num_records()
    finally:
        reader.close()


def _describe_file(path: Path, num_records: int) -> CachedFile:
    return CachedFile(
        name=path.name,
        num_records=num_records,
        num_bytes=path.stat().st_size,
        sha256=file_sha256(path),
    )


def _write_sealed(file: Path, values: dict[str, Any]) -> None:
    with replacing(file) as scratch:
        write_json(scratch, values)
