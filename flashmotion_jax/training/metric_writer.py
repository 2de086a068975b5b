"""Metrics, messages and sample videos of a run: to the terminal, `log.jsonl` and TensorBoard.

Metrics are plain numbers: nothing here touches a device. Of several processes, only the first
writes.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json

#: Minimum time between progress lines when standard error is not a terminal.
SECONDS_PER_LINE = 30.0


class MetricWriter:
    """Writes the progress, `log.jsonl`, TensorBoard curves and sample videos of a run.

    A line of `log.jsonl` holds the averages over `every` steps, at the last of them, or a warning:

        {"step": 509, "time": 1760000000.0, "adapter/loss/diffusion": 0.114, ...}
        {"step": 509, "warning": "variance_ratio is 0.31; expected 0.5 to 2"}

    A run that resumes at step n first drops the lines of step n and later, so that the log equals
    that of a run without interruption.

    Attributes:
      workdir: Folder of the run; holds `log.jsonl`, `tensorboard/` and `samples/`.
    """

    def __init__(
        self,
        workdir: Path,
        num_steps: int,
        *,
        start_step: int = 0,
        every: int = 10,
        quiet: bool = False,
        bounds: Mapping[str, tuple[float, float]] | None = None,
    ):
        """Opens the log.

        Args:
          workdir: Folder of the run; created if it does not exist.
          num_steps: Total steps of the run.
          start_step: First step that will be recorded, counted from 0.
          every: Number of steps that are averaged.
          quiet: Write nothing to standard error.
          bounds: Expected range of the average of a metric. Leaving it gives one warning until the
            metric is back; values that are not finite are always outside.

        Raises:
          UserError: `every` is below 1, or `log.jsonl` exists and is not the log of a run.
        """
        if every < 1:
            raise UserError(f"every={every}; expected the number of steps to average, at least 1")
        self.workdir = workdir
        self._num_steps, self._every = num_steps, every
        self._bounds = dict(bounds or {})
        self._outside: set[str] = set()
        self._recorded: dict[str, list[float]] = {}
        self._last_step = start_step - 1
        self._is_writer = jax.process_index() == 0
        self._is_quiet = quiet or not self._is_writer
        if self._is_writer:
            path = workdir / "log.jsonl"
            _drop_lines(path, start_step)
            self._log = path.open("a", encoding="utf-8", buffering=1)
            self._progress = None if quiet else _Progress(num_steps, start_step)
            self._tensorboard = self._open_tensorboard(start_step)

    def _open_tensorboard(self, start_step: int) -> Any:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self.message(
                "metrics go to log.jsonl; for TensorBoard: pip install 'flashmotion_jax[train]'"
            )
            return None
        # File names hold the time in seconds: a run that resumes within one needs another suffix.
        return SummaryWriter(
            str(self.workdir / "tensorboard"),
            purge_step=start_step,
            filename_suffix=f".{start_step}",
        )

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of one step; on every `every`-th step, writes the averages.

        Args:
          step: Counted from 0; each step is recorded once.
          metrics: Values by path, for example `adapter/loss/diffusion`. A metric that exists on
            some steps only is averaged over those.
        """
        if not self._is_writer:
            return
        for name, value in metrics.items():
            self._recorded.setdefault(name, []).append(value)
        self._last_step = step
        if self._progress:
            self._progress.advance(step)
        if (step + 1) % self._every == 0 or step + 1 == self._num_steps:
            self._write()

    def message(self, text: str) -> None:
        """Writes a line to standard error without breaking the progress bar."""
        if not self._is_quiet:
            tqdm.write(text, file=sys.stderr)

    def video(self, step: int, name: str, frames: np.ndarray, fps: float) -> Path:
        """Writes a sample video.

        Args:
          step: Number of completed steps.
          name: Name of the sample.
          frames: uint8 `[F, H, W, 3]`; H and W are even.
          fps: Frames per second.

        Returns:
          Path of the video, for example `samples/step_000500_car.mp4` in the workdir.

        Raises:
          UserError: The frames cannot be written.
        """
        path = self.workdir / "samples" / f"step_{step:06d}_{name}.mp4"
        if self._is_writer:
            write_video(path, frames, fps)
        return path

    def close(self) -> None:
        """Writes the averages of the remaining steps and close all files."""
        if not self._is_writer:
            return
        self._write()
        if self._progress:
            self._progress.close()
        self._log.close()
        if self._tensorboard:
            self._tensorboard.close()

    def _write(self) -> None:
        averages = {
            name: float(sum(values) / len(values)) for name, values in self._recorded.items()
        }
        self._recorded.clear()
        if not averages:
            return
        step = self._last_step
        finite = {name: mean if math.isfinite(mean) else None for name, mean in averages.items()}
        self._write_line({"step": step, "time": round(time.time(), 3), **finite})
        if self._tensorboard:
            for name, mean in finite.items():
                if mean is not None:
                    self._tensorboard.add_scalar(name, mean, step)
        if self._progress:
            self._progress.show(averages)
        self._warn(step, averages)

    def _write_line(self, line: dict[str, Any]) -> None:
        self._log.write(json.dumps(line, allow_nan=False) + "\n")

    def _warn(self, step: int, averages: dict[str, float]) -> None:
        for name, mean in averages.items():
            low, high = self._bounds.get(name, (-math.inf, math.inf))
            if math.isfinite(mean) and low <= mean <= high:
                self._outside.discard(name)
            elif name not in self._outside:
                self._outside.add(name)
                expected = f"{low:g} to {high:g}" if name in self._bounds else "a finite number"
                warning = f"{name} is {mean:g}; expected {expected}"
                self._write_line({"step": step, "warning": warning})
                self.message(f"warning at step {step}: {warning}")


class _Progress:
    """A progress bar on a terminal, or occasional lines if standard error is a file."""

    def __init__(self, num_steps: int, start_step: int):
        self._total = num_steps
        self._done = self._done_at_line = start_step
        self._line_time = time.monotonic()
        self._bar = (
            tqdm(total=num_steps, initial=start_step, unit="step", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def advance(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step + 1 - self._done)
        self._done = step + 1

    def show(self, averages: dict[str, float]) -> None:
        losses = ", ".join(
            f"{name} {mean:.4g}" for name, mean in averages.items() if "loss" in name.split("/")
        )
        if self._bar is not None:
            self._bar.set_postfix_str(losses)
            return
        seconds = time.monotonic() - self._line_time
        if seconds >= SECONDS_PER_LINE or self._done == self._total:
            rate = (self._done - self._done_at_line) / max(seconds, 1e-9)
            line = f"step {self._done}/{self._total}, {rate:.3g} steps/s, {losses}"
            print(line, file=sys.stderr)
            self._done_at_line, self._line_time = self._done, time.monotonic()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _drop_lines(path: Path, start_step: int) -> None:
    """Drops the lines of `start_step` and later, and a last line that a kill truncated."""
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
    kept = [f"{line}\n" for line in lines if _is_before(line, start_step, path)]
    with replacing(path) as scratch:
        scratch.write_text("".join(kept), encoding="utf-8")


def _is_before(line: str, start_step: int, path: Path) -> bool:
    try:
        return parse_json(line, path, "move it away")["step"] < start_step
    except UserError:  # a line that a kill cut short
        return False
    except (LookupError, TypeError) as error:
        raise UserError(
            f"{path} holds the line {line[:80]!r}; expected the log of an earlier run, with a "
            "step in each line. Move the file away"
        ) from error
