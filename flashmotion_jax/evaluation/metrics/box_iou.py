"""Box IoU: how well the boxes around found masks cover those around the true ones."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric
from flashmotion_jax.trajectory.masks import bounding_box


class BoxIoU(VideoMetric):
    """Intersection over union of the boxes around the found masks and the benchmark's."""

    name = "box_iou"
    heading = "box IoU (%)"
    about = "intersection over union of the boxes around the found masks and the benchmark's"
    scale = 100
    better = "higher"
    needs = ("masks", "true_masks")

    def measure(self, masks_KHW: np.ndarray, true_KHW: np.ndarray) -> np.ndarray:
        """float64 `[K]`."""
        boxes, true_boxes = (bounding_boxes(m[:, None]) for m in (masks_KHW, true_KHW))
        return box_iou(boxes, true_boxes)[:, 0]


def bounding_boxes(masks_KFHW: np.ndarray) -> np.ndarray:
    """The boxes around masks.

    Args:
      masks_KFHW: bool `[K, F, H, W]`.

    Returns:
      float64 `[K, F, 4]`, (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; NaN for an empty mask.
    """
    missing = (np.nan,) * 4
    boxes = [[bounding_box(mask_HW) or missing for mask_HW in mask_FHW] for mask_FHW in masks_KFHW]
    return np.array(boxes, np.float64).reshape(*masks_KFHW.shape[:2], 4)


def box_iou(boxes_KF4: np.ndarray, true_KF4: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes.

    Args:
      boxes_KF4: `[K, F, 4]`, (x0, y0, x1, y1) in any unit; NaN where there is no box.
      true_KF4: `[K, F, 4]` in the same unit, for instance the requested boxes.

    Returns:
      float64 `[K, F]` in 0..1; NaN where there is no true box, 0 where only the other is missing.

    Raises:
      ValueError: The boxes are not of one shape `[K, F, 4]`.
    """
    if boxes_KF4.shape != true_KF4.shape or boxes_KF4.ndim != 3 or boxes_KF4.shape[-1] != 4:
        raise ValueError(
            f"boxes of the shapes {boxes_KF4.shape} and {true_KF4.shape}: expected one shape "
            "[K, F, 4] of (x0, y0, x1, y1)"
        )
    top_left = np.maximum(boxes_KF4[..., :2], true_KF4[..., :2])
    bottom_right = np.minimum(boxes_KF4[..., 2:], true_KF4[..., 2:])
    overlap_KF = np.prod(np.maximum(bottom_right - top_left, 0), axis=-1)
    union_KF = _area(boxes_KF4) + _area(true_KF4) - overlap_KF
    iou_KF = overlap_KF / np.where(union_KF > 0, union_KF, 1)
    iou_KF = np.where(np.isnan(boxes_KF4).any(axis=-1), 0.0, iou_KF)
    return np.where(np.isnan(true_KF4).any(axis=-1), np.nan, iou_KF)


def _area(boxes_KF4: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes_KF4[..., 2:] - boxes_KF4[..., :2], 0), axis=-1)
