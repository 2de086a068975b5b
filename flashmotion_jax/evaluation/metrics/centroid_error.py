"""Centroid error: how far an object is from where it should be."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric, check_masks
from flashmotion_jax.evaluation.metrics.mask_iou import areas
from flashmotion_jax.trajectory.masks import bounding_box


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
    area_KF, true_area_KF = areas(masks_KFHW), areas(true_KFHW)
    shift_KF2 = centroids(masks_KFHW, area_KF) - centroids(true_KFHW, true_area_KF)
    distance_KF = np.linalg.norm(shift_KF2, axis=-1)
    error_KF = np.where(area_KF > 0, distance_KF, np.hypot(*masks_KFHW.shape[-2:]) / 2)
    return np.where(true_area_KF > 0, error_KF, np.nan)


def centroids(masks_KFHW: np.ndarray, area_KF: np.ndarray) -> np.ndarray:
    """Mean (y, x) of the pixels of each mask, `[K, F, 2]`; zero for an empty one."""
    centroids_KF2 = np.zeros((*masks_KFHW.shape[:2], 2))
    for one in np.argwhere(area_KF > 0):
        mask_HW = masks_KFHW[*one]
        # Only the box around the mask is summed.
        left, top, right, bottom = bounding_box(mask_HW) or (0, 0, 0, 0)
        part_HW = mask_HW[top:bottom, left:right]
        y = part_HW.sum(axis=1) @ np.arange(top, bottom)
        x = part_HW.sum(axis=0) @ np.arange(left, right)
        centroids_KF2[*one] = np.array([y, x]) / area_KF[*one]
    return centroids_KF2
