"""Atomic writes: a reader sees the old file or the complete new one, never a part."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flashmotion_jax.runtime.errors import UserError

#: Bytes that `replacing` adds to a name for its temporary folder.
_SCRATCH_NAME = 12
_MAX_NAME = 255
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|(pipe|fd|data):", re.IGNORECASE)


def check_file(path: str | Path) -> None:
    """Checks in advance whether `replacing` can write a file.

    Raises:
      UserError: The path cannot be a name, exists and is not a file, or its folder is not writable.
    """
    _check_name(path)
    if is_folder(path):
        raise UserError(f"{path} is a folder; expected the name of a file to write")
    # A rename would put a file in the place of a device, such as /dev/null.
    if not stat.S_ISREG(_mode(path) or stat.S_IFREG):
        raise UserError(f"{path} exists and is not a file; expected the name of a file to write")
    _check_writable(path, Path(path).absolute().parents)


def check_folder(path: str | Path) -> None:
    """Checks in advance whether a folder can be created, or files in an existing one.

    Raises:
      UserError: The path cannot be a name, is a file, or is not writable.
    """
    _check_name(path)
    if os.path.lexists(path) and not is_folder(path):
        raise UserError(f"{path} is a file; expected the name of a folder")
    path = Path(path).absolute()
    _check_writable(path, [path, *path.parents])


def is_folder(path: str | Path) -> bool:
    """Whether a path is a folder; False, too, if this user cannot look it up."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: str | Path) -> int:
    """Type and permissions of what is at a path; 0 if nothing is, or it cannot be looked up."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):
        return 0


def _check_name(path: str | Path) -> None:
    text = str(path)
    if not text or "\0" in text:
        raise UserError(f"{text!r} cannot be the name of a file")
    if _ADDRESS.match(text):
        raise UserError(f"cannot write {path}: it is an address; expected a path on this machine")
    try:
        longest = max(len(os.fsencode(part)) for part in Path(text).absolute().parts)
    except UnicodeEncodeError:
        raise UserError(f"{text!r} cannot be the name of a file") from None
    if longest > _MAX_NAME - _SCRATCH_NAME:
        raise UserError(f"the name {text[:40]!r}... is too long for a file; choose a shorter one")


def _check_writable(path: str | Path, folders: Sequence[Path]) -> None:
    """Creates and removes an empty folder in the first of the folders that exists."""
    there = next(folder for folder in folders if os.path.lexists(folder))
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {there} is not a folder that this user can write to "
            f"({error.strerror})"
        ) from None


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
