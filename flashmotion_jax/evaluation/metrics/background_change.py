"""Background change: how much changes where no object is."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import Frame
from flashmotion_jax.evaluation.metrics.temporal import TemporalMetric, nearest


class BackgroundChange(TemporalMetric):
    """Change from one frame to the next of the pixels that no object covers in either."""

    name = "background_change"
    heading = "background change (levels)"
    about = "from one frame to the next where no object is; it includes the camera's motion"
    better = "lower"
    needs = ("pixels",)

    def __init__(self):
        super().__init__()
        self._objects: tuple[np.ndarray | None, np.ndarray | None] = (None, None)

    def add(self, frame: Frame) -> None:
        """Takes the next frame of the video."""
        objects = frame.true_objects if self.of_truth else frame.objects
        self._objects = (self._objects[1], objects)
        super().add(frame)

    def measure(self, pixels: np.ndarray) -> float:
        """Change from the frame before; NaN for the first, and where objects are unknown."""
        frames = self.last_frames(pixels, 2)
        before, after = self._objects
        if before is None or after is None:
            return np.nan
        background = ~(nearest(before, *pixels.shape[:2]) | nearest(after, *pixels.shape[:2]))
        if not background.any():
            return np.nan
        return float(np.abs(frames[1] - frames[0])[background].mean())


class TrueBackgroundChange(BackgroundChange):
    """Background change of the benchmark's video."""

    name = "true_background_change"
    heading = "background change of the truth"
    about = "the same of the benchmark's video"
    better = ""
    of_truth = True
    needs = ("true_pixels",)
