"""Metrics: one class a file, one row each in `METRICS`."""

from __future__ import annotations

from flashmotion_jax.evaluation.metrics.background_change import (
    BackgroundChange,
    TrueBackgroundChange,
)
from flashmotion_jax.evaluation.metrics.base import Distance, Metric, VideoMetric
from flashmotion_jax.evaluation.metrics.box_iou import BoxIoU
from flashmotion_jax.evaluation.metrics.centroid_error import CentroidError
from flashmotion_jax.evaluation.metrics.endpoint_error import EndPointError
from flashmotion_jax.evaluation.metrics.fid import FID
from flashmotion_jax.evaluation.metrics.flicker import Flicker, TrueFlicker
from flashmotion_jax.evaluation.metrics.fvd import FVD
from flashmotion_jax.evaluation.metrics.lost import Lost
from flashmotion_jax.evaluation.metrics.mask_iou import MaskIoU
from flashmotion_jax.evaluation.metrics.motion import Motion
from flashmotion_jax.evaluation.metrics.psnr import PSNR, BackgroundPSNR
from flashmotion_jax.evaluation.metrics.requested_box_iou import RequestedBoxIoU
from flashmotion_jax.evaluation.metrics.requested_centroid_error import RequestedCentroidError
from flashmotion_jax.evaluation.metrics.sharpness import Sharpness
from flashmotion_jax.evaluation.metrics.trajectory_error import (
    AverageTrajectoryError,
    RelativeTrajectoryError,
)
from flashmotion_jax.evaluation.metrics.video_distance import VideoDistance

#: Name -> metric, in the order of tables.
METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        MaskIoU,
        BoxIoU,
        CentroidError,
        Lost,
        RequestedBoxIoU,
        RequestedCentroidError,
        AverageTrajectoryError,
        RelativeTrajectoryError,
        EndPointError,
        Sharpness,
        Motion,
        PSNR,
        BackgroundPSNR,
        Flicker,
        BackgroundChange,
        TrueFlicker,
        TrueBackgroundChange,
        FID,
        FVD,
        VideoDistance,
    )
}

#: Those of a video, and those of a set of videos.
VIDEO_METRICS: dict[str, type[VideoMetric]] = {
    name: metric for name, metric in METRICS.items() if issubclass(metric, VideoMetric)
}
DISTANCES: dict[str, type[Distance]] = {
    name: metric for name, metric in METRICS.items() if issubclass(metric, Distance)
}


def is_measured(metric: type[Metric], bench: str) -> bool:
    """Whether a metric is measured on a benchmark."""
    return metric.benchmarks is None or bench in metric.benchmarks
