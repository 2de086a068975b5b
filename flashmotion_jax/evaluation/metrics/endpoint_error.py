"""End-point error: how far tracked points are from the benchmark's."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric


class EndPointError(VideoMetric):
    """Distance between the tracks of the generated video and the benchmark's."""

    name = "endpoint_error"
    heading = "end-point error (px)"
    about = "distance between tracks, in pixels of the benchmark"
    better = "lower"
    needs = ("points", "true_points")

    def measure(self, points_N2: np.ndarray, true_N2: np.ndarray) -> np.ndarray:
        """float64 `[N]`; NaN where the benchmark's point is hidden."""
        return np.linalg.norm(points_N2 - true_N2, axis=-1)
