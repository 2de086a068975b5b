"""What flicker and background change share: the frames of one of two videos, in their order."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric
from flashmotion_jax.runtime.errors import UserError


class TemporalMetric(VideoMetric):
    """A metric of neighboring frames, in levels of 0..255.

    A still video scores perfectly, so each of these metrics stands beside that of the benchmark's
    own video, which is a subclass with `of_truth`.
    """

    digits = 3

    def __init__(self):
        super().__init__()
        self._previous: list[np.ndarray] = []

    def last_frames(self, pixels: np.ndarray, count: int) -> list[np.ndarray]:
        """The last `count` frames up to this one, uint8 `[H, W, 3]`; fewer at the beginning.

        Raises:
          UserError: The frame has another size than the one before.
        """
        if self._previous and self._previous[-1].shape != pixels.shape:
            sizes = self._previous[-1].shape[:2], pixels.shape[:2]
            raise UserError(f"frames of {sizes[0]} and {sizes[1]} in one video")
        self._previous = [*self._previous, pixels][-count:]
        return self._previous


def nearest(masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes masks `[..., h, w]`: each new pixel is that of the nearest center."""
    if masks.shape[-2:] == (height, width):
        return masks
    rows = (2 * np.arange(height) + 1) * masks.shape[-2] // (2 * height)
    columns = (2 * np.arange(width) + 1) * masks.shape[-1] // (2 * width)
    return masks.take(rows, axis=-2).take(columns, axis=-1)
