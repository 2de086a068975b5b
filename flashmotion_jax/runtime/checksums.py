"""Checksums of folders and of JSON files: what was written is what is read, to the bit.

A folder that is written as a whole holds `checksums.json`, with the size and the SHA-256 of each of
its files. That file, and any other written by `write_json`, carries a SHA-256 of its own content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.hashing import file_sha256
from flashmotion_jax.runtime.json_files import read_json_object

FILE_NAME = "checksums.json"

#: Files hashed at the same time; hashlib releases the interpreter's lock.
THREADS = 8


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object together with its checksum."""
    sealed = {**values, "checksum": _checksum(values)}
    file.write_text(json.dumps(sealed, indent=2) + "\n", encoding="utf-8")


def read_json(file: Path, fix: str = "copy it again") -> dict[str, Any]:
    """Reads a JSON object, and checks it if it was written with a checksum.

    Args:
      file: The file.
      fix: What to do about a damaged file, for the message.

    Returns:
      The object, without the checksum.

    Raises:
      UserError: The file is not a JSON object, or it changed after it was written.
    """
    values = read_json_object(file, fix)
    checksum = values.pop("checksum", None)
    if checksum is not None and checksum != _checksum(values):
        raise UserError(
            f"{file} changed after it was written; {fix}, or, if the change was meant, "
            'delete its "checksum"'
        )
    return values


def write_checksums(folder: Path) -> None:
    """Writes the `checksums.json` of a folder, over all of its files at any depth."""
    write_json(folder / FILE_NAME, {"files": measure_files(folder)})


def find_damage(folder: Path, names: list[str] | None = None) -> list[str] | None:
    """Compares the files of a folder with its `checksums.json`.

    Args:
      folder: A folder that `write_checksums` was called for.
      names: The files to compare, relative to the folder; None for all, and for files that should
        not be there.

    Returns:
      One line per file that is missing, unexpected or differs; None if the folder has no
      `checksums.json`.

    Raises:
      UserError: `checksums.json` itself is damaged.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        return None
    values = read_json(file)
    expected = values.get("files")
    # A damaged name of the checksum itself would leave a key that is unknown.
    if values.keys() != {"files"} or not isinstance(expected, dict):
        raise UserError(f"{file} is damaged; copy the folder again")
    wanted = expected.keys() if names is None else names
    there = _files(folder)  # so that a damaged name cannot lead elsewhere
    found = measure_files(folder, [name for name in wanted if name in there])
    damage = [
        f"{str(folder / name)[:300]} "
        f"{'differs from what was written' if name in found else 'is missing'}"
        for name in wanted
        if found.get(name) != expected.get(name)
    ]
    if names is None:
        extra = sorted(set(there) - expected.keys())
        damage += [f"{folder / name} is not one of the files written" for name in extra]
    return damage


def require_undamaged(folder: Path, names: list[str] | None = None) -> None:
    """Checks the files of a folder; one without `checksums.json` passes.

    Raises:
      UserError: A file is missing, unexpected, or differs from what was written.
    """
    if damage := find_damage(folder, names):
        more = f", and {len(damage) - 1} more" if damage[1:] else ""
        raise UserError(f"{damage[0]}{more}; copy or convert {folder} again")


def measure_files(folder: Path, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Returns the size and the SHA-256 of files of a folder, by their names relative to it.

    Args:
      folder: The folder.
      names: The files to measure; None for all of them, at any depth.
    """
    names = _files(folder) if names is None else names
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(lambda name: file_sha256(folder / name), names)
        return {
            name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
            for name, digest in zip(names, digests, strict=True)
        }


def _files(folder: Path) -> list[str]:
    """All files below a folder but its checksums, relative to it, in order."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name != FILE_NAME)


def _checksum(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
