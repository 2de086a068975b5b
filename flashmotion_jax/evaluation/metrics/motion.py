"""Motion: the temporal variance of generated videos relative to that of real ones."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import Frame, VideoMetric, check_video


class Motion(VideoMetric):
    """Temporal variance relative to the benchmark's videos: a frozen video has none.

    Frame 0, which is given, never counts.
    """

    name = "motion"
    heading = "motion"
    about = "temporal variance relative to the benchmark's videos; a frozen video has none"
    benchmarks = ("sprites",)
    average = "pooled"  # Nothing moves in some real videos, which have no ratio of their own.

    def __init__(self):
        super().__init__()
        self._frames: list[tuple[np.ndarray, np.ndarray | None]] = []

    def add(self, frame: Frame) -> None:
        """Takes the next frame of the video."""
        self._frames.append((frame.pixels, frame.reference))

    def values(self) -> np.ndarray | None:
        """float64 `[2]`, temporal variance of the generated and of the true video."""
        if len(self._frames) < 3 or any(reference is None for _, reference in self._frames):
            return None
        videos = zip(*self._frames[1:], strict=True)
        return np.array([temporal_variance(np.stack(video)) for video in videos])

    @classmethod
    def total(cls, values: np.ndarray, first: int) -> tuple[float, float]:
        """The two variances."""
        generated, true = values.tolist()
        return generated, true


def temporal_variance(video_FHW3: np.ndarray) -> float:
    """Variance of a pixel over time, averaged over pixels and channels.

    Args:
      video_FHW3: uint8 or float `[F, H, W, 3]`, F at least 2.

    Returns:
      The variance in the squared unit of the video.

    Raises:
      ValueError: The video has another shape.
    """
    check_video(video_FHW3, (2, 1, 1))
    return float(video_FHW3.astype(np.float64).var(axis=0).mean())
