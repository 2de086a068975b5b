"""One writer per folder: a lock that ends with its process, however that process ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flashmotion_jax.runtime.errors import UserError


@contextmanager
def sole_writer(path: str | Path) -> Generator[None, None, None]:
    """Holds the right to write a folder, or one file of it, while the block runs.

    The operating system releases the lock when the process ends, so that a killed process leaves
    nothing to clean up. Other hosts see it where the file system passes locks on, as NFSv4 does.

    Args:
      path: The folder, or a path in a folder. Missing folders are created.

    Raises:
      UserError: Another process is writing there; the message names it.
    """
    path = Path(path)
    folder, name = (path, "") if path.is_dir() or not path.suffix else (path.parent, path.name)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{name}.lock")
    # Acquiring truncates the lock file, so the holder is described in a file of its own.
    holder = folder / f".{name}.lock.holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{path} is being written by {_read(holder)}; wait until it ends, or choose another "
            "folder"
        ) from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8")[:200] or "another process"
    except (OSError, UnicodeDecodeError):  # it is about to be written, or was just removed
        return "another process"
