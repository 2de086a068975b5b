"""User errors, and the exit status of all commands."""

from __future__ import annotations

import errno
import sys
import traceback as tracebacks
from collections.abc import Callable
from pathlib import Path

from flashmotion_jax.runtime.interrupts import INTERRUPTED, watch_interrupts


class UserError(ValueError):
    """An error that the user can fix: the message names the value, what was expected and the fix.

    Command lines print it as one line. Everything else that is raised is a bug, or a failure of the
    machine; see `exit_status`.
    """


def exit_status(program: str, run: Callable[[], int], *, traceback: bool = False) -> int:
    """Runs a command, reports what it raises on stderr, and returns its exit status.

    Args:
      program: name at the start of an error's line.
      run: the command.
      traceback: whether to print the traceback of errors that are otherwise one line.

    Returns:
      The status of `run`; 2 and one line for bad input (`UserError`); 1 and one line for a failure
      of the machine (disk, memory, permission, network, a missing package) or of training (a loss
      that is not finite); 130 if interrupted; 1 and a traceback for any other exception, which is a
      bug.
    """
    with watch_interrupts() as pressed:
        try:
            return run()
        except (Exception, KeyboardInterrupt) as error:
            failure = error
    status, message = 1, f"{program}: {failure}"
    if isinstance(failure, KeyboardInterrupt) or pressed.is_set():
        status = INTERRUPTED
        message = f"\n{program}: interrupted; it left no partial files, so run it again"
    elif isinstance(failure, UserError):
        status = 2
    else:
        traceback = traceback or not _is_of_the_machine(failure)
    if traceback:
        tracebacks.print_exception(failure)
    else:
        print(message, file=sys.stderr)
    return status


def _is_of_the_machine(error: Exception) -> bool:
    if isinstance(error, ImportError):  # a name that this package itself lacks is a bug
        return not (error.name or "").startswith("flashmotion_jax")
    return isinstance(error, OSError | MemoryError | FloatingPointError)


#: Numbers of an OSError that are due to its path, or to an offset in a damaged file.
_OF_THE_INPUT = (
    None,  # an error that Pillow raises for damage
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
    errno.EOVERFLOW,
)


def require_file(path: Path, what: str, fix: str) -> None:
    """Checks that a path is that of a file.

    Args:
      path: The path.
      what: What the file is, in the message.
      fix: What to give instead, in the message.

    Raises:
      UserError: There is nothing, or a folder.
    """
    if not path.is_file():
        place = f"{path}, which is a folder" if path.is_dir() else str(path)
        raise UserError(f"no {what} at {place}: {fix}")


def is_transient(error: Exception) -> bool:
    """Whether reading failed because of the machine, not because of what was read.

    Readers raise such an error unchanged: the disk, the network, a permission or memory may be back
    the next time, so it must not be kept as a fault of the file.
    """
    if isinstance(error, OSError):
        return error.errno not in _OF_THE_INPUT
    return isinstance(error, MemoryError)


def is_resource_exhausted(error: Exception) -> bool:
    """Whether XLA found too little memory, or TensorStore too little space on a disk."""
    return "RESOURCE_EXHAUSTED" in str(error)
