"""How long-running work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the number of steps done, and the total number of steps."""

Status = Callable[[str], None]
"""Called with a line that says what is being done."""
