"""How long-running work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the number of steps done, and the total number of steps."""

Status = Callable[[str], None]
"""Called with a line that says what is being done."""


class StepCounter:
    """Counts the steps of the current stage and reports them to a callback."""

    def __init__(self, listener: Progress | None):
        self._listener = listener
        self._stage, self._total, self._finished = "", 0, 0

    def start(self, stage: str, total: int) -> None:
        """Starts a stage."""
        self._stage, self._total = stage, total
        self(0)

    def advance(self) -> None:
        """Counts a finished step."""
        self(self._finished + 1)

    def end(self) -> None:
        """Reports all steps of the stage as finished."""
        if self._finished < self._total:
            self(self._total)

    def __call__(self, finished: int) -> None:
        """Reports the number of finished steps of the stage."""
        self._finished = finished
        if self._listener:
            self._listener(self._stage, finished, self._total)
