"""Scores of generated videos against a benchmark: a video at a time, a frame at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np

from flashmotion_jax.data.frames import find_video, iterate_frames
from flashmotion_jax.evaluation.benchmarks import Bench, Fault, Item, object_masks
from flashmotion_jax.evaluation.bootstrap import Interval, interval
from flashmotion_jax.evaluation.iou import bounding_boxes, box_iou, centroid_error, mask_iou
from flashmotion_jax.evaluation.segmenters import Segmenter

Average = Literal["video", "pooled"]


@dataclass(frozen=True)
class Protocol:
    """What the papers leave open, or state: every choice that a figure depends on.

    Attributes:
      bench: the benchmark, which says how many frames are compared.
      segmenter: "masks" that another program made, or the exact "colours" of Sprites.
      method_frames: N of a method that makes fewer frames than are compared: its videos are held
        against N uniform frames of the truth. None: all frames.
      count_frame_0: frame 0 is given to the method, and raises an IoU.
      average: of videos, each the mean over its visible objects and frames, or of all these pooled.
    """

    bench: Bench
    segmenter: Literal["masks", "colours"] = "masks"
    method_frames: int | None = None
    count_frame_0: bool = False
    average: Average = "video"

    def __post_init__(self):
        if self.method_frames is not None and self.method_frames < 2:
            raise ValueError(f"method_frames={self.method_frames}; expected at least 2, or None")
        if self.segmenter == "colours" and self.bench != "sprites":
            raise ValueError(
                f"segmenter='colours' for bench={self.bench!r}: only the colours of sprites are "
                "known; give masks"
            )


class Score(NamedTuple):
    """A video's scores; an object that the truth does not show in a frame is NaN there.

    Attributes:
      id: of the video.
      group: by number of objects.
      mask_iou: float64 [K, F], 0..1.
      box_iou: likewise, of the boxes around the masks.
      centroid_error: likewise, as a fraction of the frame's diagonal.
    """

    id: str
    group: str
    mask_iou: np.ndarray
    box_iou: np.ndarray
    centroid_error: np.ndarray


FIGURES = ("mask_iou", "box_iou", "centroid_error")


def sampled_frames(count: int, method_frames: int | None) -> np.ndarray:
    """The frames of the truth that the frames 0, 1, ... of a generated video are held against.

    Args:
      count: frames of the truth.
      method_frames: as of `Protocol`.

    Returns:
      int64 [N], the first and the last frame among them.
    """
    if method_frames is None or method_frames >= count:
        return np.arange(count)
    return np.rint(np.linspace(0, count - 1, method_frames)).astype(np.int64)


def score_video(
    item: Item, predictions: Path, segmenter: Segmenter, method_frames: int | None = None
) -> Score | Fault:
    """Scores a generated video of any size; its masks are brought to the truth's by nearest.

    Args:
      item: of the benchmark.
      predictions: the folder with `<id>.mp4`, `<id>.mkv`, or a folder `<id>` of images.
      segmenter: of the generated frames.
      method_frames: as of `Protocol`.

    Returns:
      The scores, or why there are none: the video is missing, short or damaged, or has no masks.
    """
    path = find_video(predictions, item.id)
    if not path.exists():
        return Fault(item.id, "no generated video")
    wanted = sampled_frames(len(item.masks), method_frames)
    columns = []
    try:
        frames = islice(iterate_frames(path), len(wanted))
        for index, found_KHW in zip(wanted, segmenter(item, frames), strict=False):
            true_KHW = object_masks(item.masks[index], item.labels)
            columns.append(_score_frame(_resized(found_KHW, true_KHW.shape), true_KHW))
    except (OSError, ValueError, av.FFmpegError) as error:
        return Fault(item.id, str(error))
    if len(columns) < len(wanted):
        return Fault(item.id, f"{len(columns)} frames generated, {len(wanted)} are needed")
    return Score(item.id, item.group, *np.concatenate(columns, axis=2))


def summarise(scores: Iterable[Score], protocol: Protocol, seed: int = 0) -> dict[str, Interval]:
    """The figures of a set of videos, with 95 % intervals over videos.

    Args:
      scores: one or more.
      protocol: says which frames count, and how they are averaged.
      seed: of the bootstrap.

    Returns:
      `FIGURES` -> its interval.
    """
    first = 0 if protocol.count_frame_0 else 1
    statistic = _AVERAGES[protocol.average]
    scores = list(scores)
    summary = {}
    for name in FIGURES:
        values = [getattr(score, name)[:, first:] for score in scores]
        sums = [(np.nansum(v), np.isfinite(v).sum()) for v in values]
        # A video with nothing to measure has no mean: the bootstrap leaves rows with a NaN out.
        rows_N2 = np.array([(total, count or np.nan) for total, count in sums], np.float64)
        summary[name] = interval(rows_N2.reshape(-1, 2), statistic, seed=seed)
    return summary


def _mean_of_videos(rows_N2: np.ndarray) -> float:
    return float((rows_N2[:, 0] / rows_N2[:, 1]).mean())


def _pooled(rows_N2: np.ndarray) -> float:
    total, count = rows_N2.sum(axis=0)
    return float(total / count)


_AVERAGES: dict[Average, Callable[[np.ndarray], float]] = {
    "video": _mean_of_videos,
    "pooled": _pooled,
}


def _score_frame(found_KHW: np.ndarray, true_KHW: np.ndarray) -> np.ndarray:
    """The `FIGURES` of one frame, [3, K, 1]."""
    found, true = found_KHW[:, None], true_KHW[:, None]
    boxes = bounding_boxes(found), bounding_boxes(true)
    diagonal = np.hypot(*true_KHW.shape[1:])
    return np.stack(
        [mask_iou(found, true), box_iou(*boxes), centroid_error(found, true) / diagonal]
    )


def _resized(masks_KHW: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Masks at the last two sizes of `shape`, each pixel that of the nearest centre."""
    (height, width), (new_height, new_width) = masks_KHW.shape[1:], shape[1:]
    rows = (2 * np.arange(new_height) + 1) * height // (2 * new_height)
    columns = (2 * np.arange(new_width) + 1) * width // (2 * new_width)
    return masks_KHW[:, rows[:, None], columns]
