"""Writing files so that a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from flashmotion_jax.runtime.errors import UserError


def check_file(path: str | Path) -> None:
    """Tells before the work whether `replacing` could write its result there.

    Raises:
      UserError: it is a folder, or the folder that it would be in cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected the name of a file to write")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"cannot write {path}: {there} is no folder that this user may write to")


@contextmanager
def replacing(path: str | Path) -> Generator[Path, None, None]:
    """Yields a scratch name in the folder of `path` that becomes `path` if the block succeeds.

    Missing folders are made. If the block raises, `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        finished = Path(scratch) / path.name
        yield finished
        finished.replace(path)


@contextmanager
def replacing_folder(folder: str | Path) -> Generator[Path, None, None]:
    """Like `replacing`, for a folder: one that is there goes when the new one is whole."""
    folder = Path(folder)
    with replacing(folder) as scratch:
        yield scratch
        if folder.exists():
            folder.rename(scratch.with_name("replaced"))
