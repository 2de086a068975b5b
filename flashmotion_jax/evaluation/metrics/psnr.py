"""PSNR: how exactly a video reproduces the benchmark's."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric

#: Mean squared error of rounding to whole numbers, the smallest that 8 bits can show.
_ROUNDING_ERROR = 1 / 12


class PSNR(VideoMetric):
    """Peak signal-to-noise ratio of all pixels, at most 58.9 dB, an error of rounding.

    It rates a reconstruction. A generated video may be right and still differ from the real one.
    """

    name = "psnr"
    heading = "PSNR (dB)"
    about = "peak signal-to-noise ratio of all pixels to the benchmark's video"
    better = "higher"
    needs = ("pixels", "reference")
    benchmarks = ("sprites",)

    def measure(
        self, pixels: np.ndarray, reference: np.ndarray, where_HW: np.ndarray | None = None
    ) -> np.ndarray:
        """float64 `[2]`, sum of squared errors and number of values, of all pixels or some."""
        if where_HW is not None:
            pixels, reference = pixels[where_HW], reference[where_HW]
        error = pixels.astype(np.float64) - reference
        return np.array([np.square(error).sum(), error.size], np.float64)

    @classmethod
    def total(cls, values: np.ndarray, first: int) -> tuple[float, float]:
        """PSNR of the video in dB, and 1; NaN for no pixels."""
        error, count = np.nansum(values[:, first:], axis=1)
        if not count:
            return 0.0, np.nan
        return float(10 * np.log10(255**2 / max(error / count, _ROUNDING_ERROR))), 1.0


class BackgroundPSNR(PSNR):
    """PSNR of the pixels that no object touches; not measured if the camera moves."""

    name = "background_psnr"
    heading = "background PSNR (dB)"
    about = "the same ratio of the pixels that no object touches, where the camera is still"
    needs = ("pixels", "reference", "background")
