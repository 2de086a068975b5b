"""Background change: how much changes where no object is."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import Frame
from flashmotion_jax.evaluation.metrics.temporal import TemporalMetric, nearest


class BackgroundChange(TemporalMetric):
    """Change from one frame to the next of the pixels that no object covers in either."""

    name = "background_change"
    heading = "background change (levels)"
    about = (
        "change of pixels from one frame to the next where no object is; it includes the camera's "
        "motion"
    )
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
        height, width, channels = pixels.shape
        background = ~(nearest(before, height, width) | nearest(after, height, width))
        count = channels * np.count_nonzero(background)
        if not count:
            return np.nan
        change = np.maximum(*frames)
        change -= np.minimum(*frames)
        # Zero where objects are. Selecting the other pixels would take ten times as long.
        change = change.reshape(height, -1)
        change *= background.repeat(channels, axis=1)
        return float(change.sum() / count)


class TrueBackgroundChange(BackgroundChange):
    """Background change of the benchmark's video."""

    name = "true_background_change"
    heading = "background change of the truth"
    about = "background change of the benchmark's own video, for comparison"
    better = ""
    of_truth = True
    needs = ("true_pixels",)
