"""Requested center: how far an object is from the center of its requested box."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric
from flashmotion_jax.evaluation.metrics.box_iou import bounding_boxes


class RequestedCentroidError(VideoMetric):
    """Distance between the centers of the boxes around found masks and of the requested boxes."""

    name = "requested_centroid_error"
    heading = "requested center (%)"
    about = (
        "distance between the centers of the box around the found mask and of the requested box, "
        "in percent of the frame's diagonal"
    )
    scale = 100
    better = "lower"
    needs = ("masks", "requested_boxes")

    def measure(self, masks_KHW: np.ndarray, requested_K4: np.ndarray) -> np.ndarray:
        """float64 `[K]`, as fractions of the diagonal; 0.5 for an object that was not found."""
        height, width = masks_KHW.shape[1:]
        boxes_K4 = bounding_boxes(masks_KHW[:, None])[:, 0]
        requested_K4 = requested_K4 * np.array([width, height] * 2)
        shift_K2 = _centers(boxes_K4) - _centers(requested_K4)
        error_K = np.linalg.norm(shift_K2, axis=-1) / np.hypot(height, width)
        error_K = np.where(np.isnan(boxes_K4).any(axis=-1), 0.5, error_K)
        return np.where(np.isnan(requested_K4[:, 0]), np.nan, error_K)


def _centers(boxes_K4: np.ndarray) -> np.ndarray:
    return (boxes_K4[..., :2] + boxes_K4[..., 2:]) / 2
