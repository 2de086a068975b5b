"""Writing files so that a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


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
