"""Flicker: pixels that leave the frames before and after to the same side."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.temporal import TemporalMetric


class Flicker(TemporalMetric):
    """How far a pixel is above or below both neighbors in time.

    Motion is not flicker: a pixel that an edge passes changes from one value to another and stays.
    """

    name = "flicker"
    heading = "flicker (levels)"
    about = "how far a pixel is above or below both the frame before and the frame after"
    better = "lower"
    needs = ("pixels",)

    def measure(self, pixels: np.ndarray) -> float:
        """Flicker of the frame before this one; NaN without two frames before."""
        frames = self.last_frames(pixels, 3)
        if len(frames) < 3:
            return np.nan
        before, middle, after = frames
        # How far the pixel is outside the range of its neighbors, in 8 bits without overflow.
        lowest, highest = np.minimum(before, after), np.maximum(before, after)
        outside = np.maximum(middle, highest)
        outside -= highest
        lowest -= np.minimum(middle, lowest)
        outside += lowest  # one of them is zero
        return float(outside.sum() / outside.size)

    def values(self) -> np.ndarray | None:
        """float64 `[F]`; NaN for the first and the last frame, which lack a neighbor."""
        values = super().values()
        # A frame is known one frame later than it came.
        return None if values is None else np.append(values[1:], np.nan)


class TrueFlicker(Flicker):
    """Flicker of the benchmark's video."""

    name = "true_flicker"
    heading = "flicker of the truth"
    about = "flicker of the benchmark's own video, for comparison"
    better = ""
    of_truth = True
    needs = ("true_pixels",)
