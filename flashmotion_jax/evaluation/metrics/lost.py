"""Lost objects: how often nothing is found of an object that should be visible."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric


class Lost(VideoMetric):
    """Share of the visible objects and frames in which no pixel of the object was found."""

    name = "lost"
    heading = "lost (%)"
    about = "share of visible objects and frames in which nothing of the object was found"
    scale = 100
    better = "lower"
    needs = ("masks", "true_masks")
    benchmarks = ("sprites",)

    def measure(self, masks_KHW: np.ndarray, true_KHW: np.ndarray) -> np.ndarray:
        """float64 `[K]`, 0 or 1; NaN for an object that is not visible."""
        return np.where(true_KHW.any(axis=(1, 2)), ~masks_KHW.any(axis=(1, 2)), np.nan)
