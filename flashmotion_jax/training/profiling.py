"""A profile of a few training steps, for TensorBoard."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path

import jax

from flashmotion_jax.training.train_step import Update

#: Steps of a profile, at least; each update runs in it at least once.
MIN_STEPS = 3


class Profiler:
    """Profiles steps of a run once every update has been compiled.

    Args:
      folder: Written to with `jax.profiler`; None profiles nothing.
      updates: The stage's updates.
    """

    def __init__(self, folder: str | Path | None, updates: Sequence[Update]):
        self._folder, self._updates = folder, updates
        self._not_compiled = {update.model for update in updates}
        self._num_steps = max(MIN_STEPS, *(update.every for update in updates))
        self._steps: list[int] = []
        self._is_running = False

    @contextlib.contextmanager
    def step(self, step: int) -> Generator[None]:
        """Wrap a training step, counted from 0; start the profile when warm-up is over."""
        if self._folder is None:
            yield
            return
        if not self._not_compiled and not self._steps:
            jax.profiler.start_trace(str(self._folder))
            self._is_running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield
        self._not_compiled -= {update.model for update in self._updates if update.is_due(step)}
        if self._is_running:
            self._steps.append(step)

    @property
    def is_complete(self) -> bool:
        """Whether the profile holds all its steps and should be stopped."""
        return self._is_running and len(self._steps) >= self._num_steps

    def stop(self) -> str:
        """Writes the profile; the devices should have finished its steps. Returns a message."""
        self._is_running = False
        jax.profiler.stop_trace()
        return (
            f"profiled steps {self._steps[0]} to {self._steps[-1]}: "
            f"tensorboard --logdir {self._folder}"
        )

    def close(self) -> str | None:
        """Stops a profile that the end of the run cuts short; returns a message if there is one."""
        if self._is_running:
            return self.stop()
        if self._folder is not None and not self._steps:
            return "no profile: the run ended before every update had run once"
        return None
