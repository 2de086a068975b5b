"""Ctrl-C: it ends a command wherever it arrives, and the process at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any, NoReturn

#: The exit status of a command that Ctrl-C has ended.
INTERRUPTED = 130


@contextlib.contextmanager
def watch_interrupts() -> Generator[threading.Event]:
    """Raises KeyboardInterrupt at Ctrl-C as Python does, and remembers that it was pressed.

    Libraries turn the exception into others: TensorStore, for instance, into a failure to read,
    which looks like a damaged file. asyncio, which would cancel its tasks instead, leaves a handler
    alone that is not Python's own.

    Yields:
      An event that is set if Ctrl-C was pressed. It never is outside the main thread, which alone
      handles signals, or where another handler than Python's is installed.
    """
    pressed = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.default_int_handler(number, frame)

    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if is_ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        with _lost_interrupts_raised_again():
            yield pressed
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _lost_interrupts_raised_again() -> Generator[None]:
    """Repeats a Ctrl-C that arrives in a destructor or a weak reference's callback.

    Python prints and drops what is raised there.
    """
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


def exit_process(status: int) -> NoReturn:
    """Ends the process; after Ctrl-C without the shutdown of the interpreter.

    The shutdown waits for other threads, and may crash if JAX was interrupted while it compiled.
    """
    if status != INTERRUPTED:
        sys.exit(status)
    for child in multiprocessing.active_children():
        child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
