"""Requested box IoU: how well an object follows the box that was requested for it."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric
from flashmotion_jax.evaluation.metrics.box_iou import bounding_boxes, box_iou


class RequestedBoxIoU(VideoMetric):
    """Intersection over union of the boxes around the found masks and the requested boxes."""

    name = "requested_box_iou"
    heading = "requested box IoU (%)"
    about = (
        "intersection over union of the box around the found mask and the requested box inside "
        "the frame"
    )
    scale = 100
    better = "higher"
    needs = ("masks", "requested_boxes")

    def measure(self, masks_KHW: np.ndarray, requested_K4: np.ndarray) -> np.ndarray:
        """float64 `[K]`."""
        height, width = masks_KHW.shape[1:]
        requested_K14 = requested_K4[:, None] * np.array([width, height] * 2)
        return box_iou(bounding_boxes(masks_KHW[:, None]), requested_K14)[:, 0]
