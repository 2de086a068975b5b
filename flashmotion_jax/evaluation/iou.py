"""Where objects are against where they should be: mask IoU, box IoU and the centroid's error.

One rule holds for all three. An object counts in the frames in which the truth shows it, and is NaN
in the others, so that a mean with `np.nanmean` is over visible objects; what is drawn where nothing
should be is not counted. An object that the prediction has lost there is as wrong as can be: IoU 0,
and a centroid that is off by half of the diagonal.
"""

from __future__ import annotations

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.masks import bounding_box


def mask_iou(pred_KFHW: np.ndarray, true_KFHW: np.ndarray) -> np.ndarray:
    """Intersection over union of masks.

    Args:
      pred_KFHW: bool [K, F, H, W], a mask for each object and frame.
      true_KFHW: likewise.

    Returns:
      float64 [K, F] in 0..1, NaN where the true mask is empty.

    Raises:
      UserError: the masks are not bool, or not of one shape of four dimensions.
    """
    _check_masks(pred_KFHW, true_KFHW)
    overlap_KF = (pred_KFHW & true_KFHW).sum(axis=(-2, -1))
    union_KF = (pred_KFHW | true_KFHW).sum(axis=(-2, -1))
    iou_KF = overlap_KF / np.maximum(union_KF, 1)
    return np.where(true_KFHW.any(axis=(-2, -1)), iou_KF, np.nan)


def bounding_boxes(masks_KFHW: np.ndarray) -> np.ndarray:
    """The boxes around masks.

    Args:
      masks_KFHW: bool [K, F, H, W].

    Returns:
      float64 [K, F, 4] of (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; NaN around nothing.
    """
    missing = (np.nan,) * 4
    boxes = [[bounding_box(mask_HW) or missing for mask_HW in mask_FHW] for mask_FHW in masks_KFHW]
    return np.array(boxes, np.float64).reshape(*masks_KFHW.shape[:2], 4)


def box_iou(pred_KF4: np.ndarray, true_KF4: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes.

    Args:
      pred_KF4: [K, F, 4] of (x0, y0, x1, y1) in any one unit; NaN where there is no box.
      true_KF4: likewise, such as `bounding_boxes` of the true masks, or the boxes asked for.

    Returns:
      float64 [K, F] in 0..1, NaN where there is no true box.

    Raises:
      UserError: the boxes are not of one shape [K, F, 4].
    """
    if pred_KF4.shape != true_KF4.shape or pred_KF4.ndim != 3 or pred_KF4.shape[-1] != 4:
        raise UserError(
            f"boxes of the shapes {pred_KF4.shape} and {true_KF4.shape}: expected one shape "
            "[K, F, 4] of (x0, y0, x1, y1)"
        )
    top_left = np.maximum(pred_KF4[..., :2], true_KF4[..., :2])
    bottom_right = np.minimum(pred_KF4[..., 2:], true_KF4[..., 2:])
    overlap_KF = np.prod(np.maximum(bottom_right - top_left, 0), axis=-1)
    union_KF = _area(pred_KF4) + _area(true_KF4) - overlap_KF
    iou_KF = overlap_KF / np.where(union_KF > 0, union_KF, 1)
    iou_KF = np.where(np.isnan(pred_KF4).any(axis=-1), 0.0, iou_KF)
    return np.where(np.isnan(true_KF4).any(axis=-1), np.nan, iou_KF)


def centroid_error(pred_KFHW: np.ndarray, true_KFHW: np.ndarray) -> np.ndarray:
    """How far the centre of an object's pixels is from where it should be.

    Args:
      pred_KFHW: bool [K, F, H, W].
      true_KFHW: likewise.

    Returns:
      float64 [K, F] in pixels, NaN where the true mask is empty, half of the frame's diagonal
      where the predicted one is.

    Raises:
      UserError: the masks are not bool, or not of one shape of four dimensions.
    """
    _check_masks(pred_KFHW, true_KFHW)
    distance_KF = np.linalg.norm(_centroids(pred_KFHW) - _centroids(true_KFHW), axis=-1)
    lost_KF = ~pred_KFHW.any(axis=(-2, -1))
    error_KF = np.where(lost_KF, np.hypot(*pred_KFHW.shape[-2:]) / 2, distance_KF)
    return np.where(true_KFHW.any(axis=(-2, -1)), error_KF, np.nan)


def _area(boxes_KF4: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes_KF4[..., 2:] - boxes_KF4[..., :2], 0), axis=-1)


def _centroids(masks_KFHW: np.ndarray) -> np.ndarray:
    """Mean (y, x) of the pixels of each mask, [K, F, 2]; zero for an empty one."""
    count_KF = np.maximum(masks_KFHW.sum(axis=(-2, -1)), 1)
    y_KF = masks_KFHW.sum(axis=-1) @ np.arange(masks_KFHW.shape[-2]) / count_KF
    x_KF = masks_KFHW.sum(axis=-2) @ np.arange(masks_KFHW.shape[-1]) / count_KF
    return np.stack([y_KF, x_KF], axis=-1)


def _check_masks(pred_KFHW: np.ndarray, true_KFHW: np.ndarray) -> None:
    for masks in (pred_KFHW, true_KFHW):
        if masks.dtype != bool or masks.ndim != 4 or masks.shape != true_KFHW.shape:
            raise UserError(
                f"masks of {pred_KFHW.dtype} {pred_KFHW.shape} and {true_KFHW.dtype} "
                f"{true_KFHW.shape}: expected bool of one shape [K, F, H, W]"
            )
