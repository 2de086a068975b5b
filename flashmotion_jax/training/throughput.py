"""Speed of a run: videos per second, time spent waiting for data, and MFU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable
from typing import Any

import jax

from flashmotion_jax.runtime.devices import peak_flops
from flashmotion_jax.runtime.flops import count_jaxpr_flops
from flashmotion_jax.runtime.jit import Program


class Throughput:
    """Measures a run between two lines of its log.

    Args:
      batch_size: Videos per step.
      log_every: Steps per line of the log.
    """

    def __init__(self, batch_size: int, log_every: int):
        self._batch_size, self._every = batch_size, log_every
        self._peak = (peak_flops(jax.devices()[0]) or 0.0) * jax.sharding.get_mesh().size
        self._flops: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Restart the measurement, after something that is not training."""
        self._started = time.perf_counter()
        self._steps, self._waited, self._done = 0, 0.0, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Generator[None]:
        """Wrap what waits for data."""
        # Counted at once, and not per step: metrics of a step are read after the next batch.
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def count_flops(self, model: str, train_step: Program, args: tuple[Any, ...]) -> None:
        """Counts the FLOPs of a model's update the first time that it runs.

        The trace is that of the step which then runs: jax keeps it.
        """
        if self._peak and model not in self._flops:
            jaxpr = train_step.trace(*args).jaxpr
            self._flops[model] = count_jaxpr_flops(jaxpr, recomputed=False)

    def measure(self, step: int, updated: Iterable[str]) -> dict[str, float]:
        """Counts a step whose metrics have just been read.

        Args:
          step: Counted from 0.
          updated: Models that the step has updated.

        Returns:
          On the last step of each line of the log, over all steps since the previous line:
          `seconds_per_step`, `videos_per_second`, `data_wait` as a fraction of the time, and `mfu`
          if the device's peak is known. The first line includes compilation.
        """
        self._steps += 1
        self._done += sum(self._flops.get(model, 0.0) for model in updated)
        if (step + 1) % self._every:
            return {}
        elapsed = time.perf_counter() - self._started
        measured = {
            "seconds_per_step": elapsed / self._steps,
            "videos_per_second": self._steps * self._batch_size / elapsed,
            "data_wait": self._waited / elapsed,
        }
        if self._peak:
            measured["mfu"] = self._done / (elapsed * self._peak)
        self.restart()
        return measured
