"""Centroid error: how far an object is from where it should be."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric, check_masks


class CentroidError(VideoMetric):
    """Distance between the centroids of the found masks and the benchmark's."""

    name = "centroid_error"
    heading = "centroid (%)"
    about = "distance between the centroids of the masks, in percent of the frame's diagonal"
    scale = 100
    better = "lower"
    needs = ("masks", "true_masks")

    def measure(self, masks_KHW: np.ndarray, true_KHW: np.ndarray) -> np.ndarray:
        """float64 `[K]`, as fractions of the diagonal."""
        error_K = centroid_error(masks_KHW[:, None], true_KHW[:, None])[:, 0]
        return error_K / np.hypot(*masks_KHW.shape[1:])


def centroid_error(masks_KFHW: np.ndarray, true_KFHW: np.ndarray) -> np.ndarray:
    """Distance between the centroids of masks.

    Args:
      masks_KFHW: bool `[K, F, H, W]`.
      true_KFHW: bool `[K, F, H, W]`.

    Returns:
      float64 `[K, F]` in pixels; NaN where the true mask is empty, half of the frame's diagonal
      where only the other one is.

    Raises:
      ValueError: The masks are not bool, or not of one shape `[K, F, H, W]`.
    """
    check_masks(masks_KFHW, true_KFHW)
    distance_KF = np.linalg.norm(_centroids(masks_KFHW) - _centroids(true_KFHW), axis=-1)
    lost_KF = ~masks_KFHW.any(axis=(-2, -1))
    error_KF = np.where(lost_KF, np.hypot(*masks_KFHW.shape[-2:]) / 2, distance_KF)
    return np.where(true_KFHW.any(axis=(-2, -1)), error_KF, np.nan)


def _centroids(masks_KFHW: np.ndarray) -> np.ndarray:
    """Mean (y, x) of the pixels of each mask, `[K, F, 2]`; zero for an empty one."""
    count_KF = np.maximum(masks_KFHW.sum(axis=(-2, -1)), 1)
    y_KF = masks_KFHW.sum(axis=-1) @ np.arange(masks_KFHW.shape[-2]) / count_KF
    x_KF = masks_KFHW.sum(axis=-2) @ np.arange(masks_KFHW.shape[-1]) / count_KF
    return np.stack([y_KF, x_KF], axis=-1)
