"""Mask IoU: how well found masks cover the true ones."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric, check_masks


class MaskIoU(VideoMetric):
    """Intersection over union of the found masks and the benchmark's."""

    name = "mask_iou"
    heading = "mask IoU (%)"
    about = "intersection over union of the found masks and the benchmark's, per object"
    scale = 100
    better = "higher"
    needs = ("masks", "true_masks")

    def measure(self, masks_KHW: np.ndarray, true_KHW: np.ndarray) -> np.ndarray:
        """float64 `[K]`."""
        return mask_iou(masks_KHW[:, None], true_KHW[:, None])[:, 0]


def mask_iou(masks_KFHW: np.ndarray, true_KFHW: np.ndarray) -> np.ndarray:
    """Intersection over union of masks.

    Args:
      masks_KFHW: bool `[K, F, H, W]`, a mask for each object and frame.
      true_KFHW: bool `[K, F, H, W]`.

    Returns:
      float64 `[K, F]` in 0..1; NaN where the true mask is empty, 0 where only the other one is.

    Raises:
      ValueError: The masks are not bool, or not of one shape `[K, F, H, W]`.
    """
    check_masks(masks_KFHW, true_KFHW)
    true_KF, overlap_KF = areas(true_KFHW), areas(masks_KFHW & true_KFHW)
    union_KF = areas(masks_KFHW) + true_KF - overlap_KF
    return np.where(true_KF > 0, overlap_KF / np.maximum(union_KF, 1), np.nan)


def areas(masks_KFHW: np.ndarray) -> np.ndarray:
    """Number of pixels of each mask, int64 `[K, F]`.

    For one mask at a time, NumPy counts 20 times as fast as it sums along axes.
    """
    counts = [[np.count_nonzero(mask_HW) for mask_HW in mask_FHW] for mask_FHW in masks_KFHW]
    return np.array(counts, np.int64).reshape(masks_KFHW.shape[:2])
