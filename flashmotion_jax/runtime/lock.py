"""One writer per folder: a lock that ends with its process, however that process ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flashmotion_jax.runtime.atomic import check_folder
from flashmotion_jax.runtime.errors import UserError


@contextmanager
def sole_writer(
    path: str | Path, *, beside: bool = False, part: tuple[int, int] = (1, 1)
) -> Generator[None, None, None]:
    """Holds the right to write a folder or a file while the block runs.

    The operating system releases the lock when the process ends, so that a killed process blocks
    nobody. Other hosts see it where the file system passes locks on, as NFSv4 does.

    Args:
      path: A folder, which is created if it is missing; with `beside`, anything.
      beside: Keep the lock beside the path, in its parent folder: for a file, and for a folder that
        gets its name when it is complete.
      part: Number, from 1, and number of parts of a folder that processes write together. Each part
        has a writer of its own, and none while another process writes the whole folder.

    Raises:
      UserError: Another process is writing there, and the message names it; or nobody can.
    """
    path = Path(path)
    folder, name = (path.absolute().parent, path.name) if beside else (path, "")
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        is_whole = part == (1, 1)
        stack.enter_context(_held(folder / f".{name}.lock", path, is_shared=not is_whole))
        if not is_whole:
            number, count = part
            stack.enter_context(_held(folder / f".{name}.{number}-of-{count}.lock", path))
        yield


@contextmanager
def _held(file: Path, path: Path, is_shared: bool = False) -> Generator[None, None, None]:
    descriptor = _acquire(file, path, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        with suppress(BlockingIOError):  # others share it, and need its name
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(file: Path, path: Path, kind: int) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
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
