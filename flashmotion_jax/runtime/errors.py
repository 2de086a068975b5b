"""What all command lines of the project share: errors as one line, and what they exit with."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any


class UserError(ValueError):
    """What a person can mend: the message names the value, what was expected and the fix."""


def exit_status(program: str, run: Callable[[], int]) -> int:
    """Runs a command and turns what goes wrong into one line on stderr.

    Args:
      program: name to begin the line with.
      run: the command.

    Returns:
      What `run` returns; 2 for bad input (`UserError`), 1 for a failure of the machine (disk,
      network, a package that is missing) or of training (a loss that is not finite), 130 if
      interrupted.
    """
    try:
        with _ctrl_c_asked_again():
            return run()
    except UserError as error:
        status, message = 2, f"{program}: {error}"
    except (OSError, ImportError, FloatingPointError) as error:
        status, message = 1, f"{program}: {error}"
    except KeyboardInterrupt:
        status, message = 130, f"\n{program}: interrupted; no file is half written, run it again"
    print(message, file=sys.stderr)
    return status


@contextlib.contextmanager
def _ctrl_c_asked_again() -> Generator[None]:
    """Python drops a Ctrl-C that arrives in a destructor or in a weak reference's callback."""
    previous = sys.unraisablehook

    def hook(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
        else:
            previous(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous


def part_of(text: str) -> tuple[int, int]:
    """The argument N/M: part N, counted from 1, of M that share some work.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    try:
        number, count = (int(part) for part in text.split("/"))
    except ValueError:
        number, count = 0, 0
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r}; expected N/M, for instance 2/8")
    return number, count


def is_resource_exhausted(error: Exception) -> bool:
    """Whether XLA found too little memory, or TensorStore too little space on a disk."""
    return "RESOURCE_EXHAUSTED" in str(error)
