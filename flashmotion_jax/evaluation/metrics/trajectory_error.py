"""ATE: how far an object is from the path that it was asked to follow."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.metrics.base import VideoMetric
from flashmotion_jax.evaluation.metrics.centroid_error import centroids
from flashmotion_jax.evaluation.metrics.mask_iou import areas


class AverageTrajectoryError(VideoMetric):
    """Distance in pixels between the centroid of the found mask and the requested point.

    That is the center of the requested box. It is a mean of distances without any alignment, as the
    trajectory error of Tora (arXiv:2407.21705) and ObjMC of DragAnything (arXiv:2403.07420), and
    not the ATE of SLAM, which aligns two paths and is the root of a mean square.
    """

    name = "ate"
    heading = "ATE (px)"
    about = (
        "average trajectory error: distance between the centroid of the found mask and the "
        "requested point, the center of the requested box; half a diagonal where nothing was found"
    )
    better = "lower"
    needs = ("masks", "requested_points")

    def measure(self, masks_KHW: np.ndarray, requested_K2: np.ndarray) -> np.ndarray:
        """float64 `[K]` in pixels of the masks; NaN for a point outside the frame."""
        height, width = masks_KHW.shape[1:]
        points_K2 = requested_K2 * [width, height]
        area_K1 = areas(masks_KHW[:, None])
        # A pixel's center is at one half.
        found_K2 = centroids(masks_KHW[:, None], area_K1)[:, 0, ::-1] + 0.5
        error_K = np.linalg.norm(found_K2 - points_K2, axis=-1)
        error_K = np.where(area_K1[:, 0] > 0, error_K, np.hypot(height, width) / 2)
        is_inside_K = np.all((requested_K2 >= 0) & (requested_K2 < 1), axis=-1)
        return np.where(is_inside_K, error_K, np.nan)


class RelativeTrajectoryError(AverageTrajectoryError):
    """The same, as a fraction of the frame's diagonal."""

    name = "ate_relative"
    heading = "ATE (%)"
    about = "average trajectory error in percent of the frame's diagonal"
    scale = 100

    def measure(self, masks_KHW: np.ndarray, requested_K2: np.ndarray) -> np.ndarray:
        """float64 `[K]`, as fractions of the diagonal."""
        return super().measure(masks_KHW, requested_K2) / np.hypot(*masks_KHW.shape[1:])
