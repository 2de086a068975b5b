"""One writer per folder: a lock that ends with its process, however that process ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from flashmotion_jax.runtime.errors import UserError


@contextmanager
def sole_writer(path: str | Path) -> Generator[None, None, None]:
    """Holds the right to write a folder, or one file of it, while the block runs.

    The operating system releases the lock when the process ends, so that a killed process blocks
    nobody. Other hosts see it where the file system passes locks on, as NFSv4 does.

    Args:
      path: The folder, or a file in a folder. Missing folders are created.

    Raises:
      UserError: Another process is writing there; the message names it.
    """
    path = Path(path)
    folder, name = (path.parent, path.name) if path.suffix and not path.is_dir() else (path, "")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".{name}.lock"
    descriptor = _acquire(file, path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(file: Path, path: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UserError(
                f"{path} is being written by {holder}; wait until it ends, or choose another folder"
            ) from None
        if _is_at(descriptor, file):
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, file: Path) -> bool:
    """Whether an open file still has its name; the last holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
