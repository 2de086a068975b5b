"""Atomic writes: a reader sees the old file or the complete new one, never a part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from flashmotion_jax.runtime.errors import UserError


def check_file(path: str | Path) -> None:
    """Checks in advance whether `replacing` can write a path.

    Raises:
      UserError: The path is empty, cannot be a name, or is a folder, or its folder is not writable.
    """
    if not str(path) or "\0" in str(path):
        raise UserError(f"{str(path)!r} cannot be the name of a file")
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected the name of a file to write")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"cannot write {path}: {there} is not a folder that this user can write to")


@contextmanager
def replacing(path: str | Path) -> Generator[Path, None, None]:
    """Yields a temporary path that is renamed to `path` if the block succeeds.

    Missing folders are created. If the block raises, `path` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        finished = Path(scratch) / path.name
        yield finished
        finished.replace(path)


@contextmanager
def replacing_folder(folder: str | Path) -> Generator[Path, None, None]:
    """Like `replacing`, for a folder: an existing one is removed when the new one is complete."""
    folder = Path(folder)
    with replacing(folder) as scratch:
        yield scratch
        if folder.exists():
            folder.rename(scratch.with_name("replaced"))
