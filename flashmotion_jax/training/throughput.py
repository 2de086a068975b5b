"""How fast a run is: videos a second, share of the time that waits for data, MFU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable

import jax

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.runtime.devices import peak_flops
from flashmotion_jax.training.layout import count_turns


class Throughput:
    """Measures a run over the steps between two lines of its log.

    Args:
      config: of the run.
    """

    def __init__(self, config: TrainConfig):
        self._batch_size, self._every = config.batch_size, config.log_every
        peak = peak_flops(jax.devices()[0])
        # Only where the peak is known, for counting traces every turn once more.
        self._flops = count_turns(config) if peak else {}
        self._peak = (peak or 0.0) * jax.sharding.get_mesh().size
        self.restart()

    def restart(self) -> None:
        """Begins anew, after something that is not training."""
        self._started = time.perf_counter()
        self._steps, self._waited, self._done = 0, 0.0, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Generator[None]:
        """Around what waits for data. It counts at once: a step is read later than its batch."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def measure(self, step: int, played: Iterable[str]) -> dict[str, float]:
        """Counts a step that has just been read.

        Args:
          step: counted from 0.
          played: the players of the step.

        Returns:
          On the steps that a line of the log ends with, of all steps since the line before:
          `seconds` a step, `videos_per_second`, `data_wait` as a share of the time, and `mfu` where
          the peak of the device is known. The first line includes compiling.
        """
        self._steps += 1
        self._done += sum(self._flops.get(player, 0.0) for player in played)
        if (step + 1) % self._every:
            return {}
        elapsed = time.perf_counter() - self._started
        measured = {
            "seconds": elapsed / self._steps,
            "videos_per_second": self._steps * self._batch_size / elapsed,
            "data_wait": self._waited / elapsed,
        }
        if self._peak:
            measured["mfu"] = self._done / (elapsed * self._peak)
        self.restart()
        return measured
