"""Sharpness: the gradient energy of generated videos relative to that of real ones."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric, check_video


class Sharpness(VideoMetric):
    """Gradient energy relative to the benchmark's videos: blur raises IoU and lowers this.

    Noise raises it, too, so that more is not better.
    """

    name = "sharpness"
    heading = "sharpness"
    about = "gradient energy relative to the benchmark's videos; blur lowers it, noise raises it"
    needs = ("pixels", "reference")
    benchmarks = ("sprites",)
    average = "pooled"

    def measure(self, pixels: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """float64 `[2]`, gradient energy of the generated frame and of the true one."""
        return np.array([gradient_energy(frame[None]) for frame in (pixels, reference)])

    @classmethod
    def total(cls, values: np.ndarray, first: int) -> tuple[float, float]:
        """Mean energies over frames of the generated and of the true video."""
        generated, true = values[:, first:].mean(axis=1)
        return float(generated), float(true)


def gradient_energy(video_FHW3: np.ndarray) -> float:
    """Mean square of the differences between neighboring pixels.

    Args:
      video_FHW3: uint8 or float `[F, H, W, 3]`, H and W at least 2.

    Returns:
      Squared differences down plus those across, each averaged over frames, pixels and channels,
      in the squared unit of the video.

    Raises:
      ValueError: The video has another shape.
    """
    check_video(video_FHW3, (1, 2, 2))
    x = video_FHW3.astype(np.float64)
    return float(np.square(np.diff(x, axis=1)).mean() + np.square(np.diff(x, axis=2)).mean())
