"""Scores of generated videos against a benchmark: a video at a time, a frame at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from flashmotion_jax.evaluation.asked import asked_boxes, first_frame
from flashmotion_jax.evaluation.benchmarks import Fault, Item, object_masks
from flashmotion_jax.evaluation.bootstrap import Interval, interval
from flashmotion_jax.evaluation.figures import FIGURES
from flashmotion_jax.evaluation.iou import bounding_boxes, box_iou, centroid_error, mask_iou
from flashmotion_jax.evaluation.protocol import Average, Protocol
from flashmotion_jax.evaluation.segmenters import Segmenter
from flashmotion_jax.evaluation.steadiness import Steadiness, nearest
from flashmotion_jax.media.frames import find_video, iterate_frames
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats import read_wan_move

Features = Callable[[Iterable[np.ndarray]], np.ndarray]
"""Frames uint8 [H, W, 3] -> features [F, D]."""


class Score(NamedTuple):
    """A video's scores.

    Attributes:
      id: of the video.
      group: by number of objects.
      values: name in `FIGURES` -> float64 [..., F], of objects [K, F], tracks [N, F] or frames [F];
        NaN where there is nothing to measure, such as an object that the truth does not show.
      features: "fid" or "fvd" -> those of the generated frames and of the truth's, [F, D] each.
    """

    id: str
    group: str
    values: Mapping[str, np.ndarray]
    features: Mapping[str, tuple[np.ndarray, np.ndarray]] = {}


@dataclass(frozen=True)
class Scorer:
    """Scores videos of any size; their masks are brought to the truth's size by nearest.

    Attributes:
      predictions: folder with `<id>.mp4`, `<id>.mkv`, or a folder `<id>` of images.
      segmenter: of the generated frames; None measures nothing that needs masks.
      method_frames: as of `Protocol`.
      tracks: folder with `<id>_tracks.npy`, and `<id>_visibility.npy` if there is one, of points of
        the generated video that another program tracked, from those of the benchmark on frame 0.
      features: "fid" and "fvd", if they are to be measured.
    """

    predictions: Path
    segmenter: Segmenter | None
    method_frames: int | None = None
    tracks: Path | None = None
    features: Mapping[str, Features] = field(default_factory=dict)

    def __call__(self, item: Item) -> Score | Fault:
        """The scores, or why there are none: the video is missing, short or damaged, or the like.

        Args:
          item: of the benchmark.
        """
        path = find_video(self.predictions, item.id)
        if not path.exists():
            return Fault(item.id, "no generated video")
        wanted = sampled_frames(item.num_frames, self.method_frames)
        try:
            values = self._of_frames(item, path, wanted)
            values |= self._of_truth(item, wanted)
            if self.tracks is not None and item.tracks is not None:
                values["endpoint_error"] = self._of_tracks(item, path, wanted, self.tracks)
            features = {
                name: (compute(self._frames(path, len(wanted))), compute(_truth(item, wanted)))
                for name, compute in self.features.items()
            }
        except (OSError, ValueError, EOFError, av.FFmpegError) as error:
            return Fault(item.id, str(error))
        return Score(item.id, item.group, values, features)

    def _frames(self, path: Path, count: int) -> Iterator[np.ndarray]:
        """The generated frames, of which there must be so many; more are not looked at."""
        number = 0
        for frame in islice(iterate_frames(path), count):
            number += 1
            yield frame
        if number < count:
            raise UserError(f"{number} frames generated, {count} are needed")

    def _of_frames(self, item: Item, path: Path, wanted: np.ndarray) -> dict[str, np.ndarray]:
        steady = Steadiness()
        has_masks = self.segmenter is not None and bool(item.labels)
        asked_KF4 = asked_boxes(item) if has_masks else None
        columns: list[dict[str, np.ndarray]] = []
        if not has_masks or self.segmenter is None:
            for frame in self._frames(path, len(wanted)):
                steady.add(frame)
        else:
            seen: deque[np.ndarray] = deque()

            def watched() -> Iterator[np.ndarray]:
                for frame in self._frames(path, len(wanted)):
                    seen.append(frame)
                    yield frame

            for index, found_KHW in zip(wanted, self.segmenter(item, watched()), strict=False):
                true_KHW = _true_masks(item, index)
                if true_KHW is not None:
                    found_KHW = nearest(found_KHW, *true_KHW.shape[1:])
                asked_K4 = None if asked_KF4 is None else asked_KF4[:, index]
                columns.append(_score_frame(found_KHW, true_KHW, asked_K4))
                steady.add(seen.popleft(), _any_object(found_KHW, true_KHW))
            if len(columns) < len(wanted):
                raise UserError(f"{len(columns)} frames segmented, {len(wanted)} are needed")
        stacked = _stacked(columns)
        return stacked | {
            "flicker": steady.flicker(),
            "background_change": steady.background_change(),
        }

    def _of_truth(self, item: Item, wanted: np.ndarray) -> dict[str, np.ndarray]:
        if item.video is None:
            return {}
        steady = Steadiness()
        for index, frame in zip(wanted, _truth(item, wanted), strict=True):
            true_KHW = _true_masks(item, index)
            steady.add(frame, None if true_KHW is None else _anywhere(true_KHW))
        return {
            "true_flicker": steady.flicker(),
            "true_background_change": steady.background_change(),
        }

    def _of_tracks(self, item: Item, path: Path, wanted: np.ndarray, folder: Path) -> np.ndarray:
        """Distances to the benchmark's tracks in its pixels, [N, F]; NaN where it shows none."""
        assert item.tracks is not None
        truth = read_wan_move(*item.tracks)
        found = read_wan_move(folder / f"{item.id}_tracks.npy").points_FN2
        if len(found) < len(wanted) or found.shape[1] != truth.points_FN2.shape[1]:
            raise UserError(
                f"tracks of {found.shape[:2]} frames and points, expected at least {len(wanted)} "
                f"frames and the {truth.points_FN2.shape[1]} points of the benchmark"
            )
        height, width = first_frame(item).shape[:2]
        generated = next(self._frames(path, 1)).shape
        scale = np.array([width / generated[1], height / generated[0]])
        shift = found[: len(wanted)] * scale - truth.points_FN2[wanted]
        distance_FN = np.linalg.norm(shift, axis=-1)
        return np.where(truth.visible_FN[wanted], distance_FN, np.nan).T


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


def totals(score: Score, protocol: Protocol) -> dict[str, tuple[float, int]]:
    """Sum and count of what counts of each figure of a video."""
    first = 0 if protocol.count_frame_0 else 1
    counted = {name: values[..., first:] for name, values in score.values.items()}
    return {
        name: (float(np.nansum(values)), int(np.isfinite(values).sum()))
        for name, values in counted.items()
    }


def summarise(scores: Iterable[Score], protocol: Protocol, seed: int = 0) -> dict[str, Interval]:
    """The figures of a set of videos, with 95 % intervals over videos.

    Args:
      scores: one or more.
      protocol: says which frames count, and how they are averaged.
      seed: of the bootstrap.

    Returns:
      A name in `FIGURES` -> its interval, for those that any of the videos has.
    """
    of_videos = [totals(score, protocol) for score in scores]
    return {
        name: interval(
            rows_of([one.get(name, (0.0, 0)) for one in of_videos]),
            STATISTICS[protocol.average],
            seed=seed,
        )
        for name in FIGURES
        if any(name in one for one in of_videos)
    }


def rows_of(sums: Iterable[tuple[float, int]]) -> np.ndarray:
    """Rows [N, 2] for `STATISTICS`: a video with nothing to measure has no mean and is left out."""
    rows = [(total, count or np.nan) for total, count in sums]
    return np.array(rows, np.float64).reshape(-1, 2)


def _mean_of_videos(rows_N2: np.ndarray) -> float:
    return float((rows_N2[:, 0] / rows_N2[:, 1]).mean())


def _pooled(rows_N2: np.ndarray) -> float:
    total, count = rows_N2.sum(axis=0)
    return float(total / count)


STATISTICS: dict[Average, Callable[[np.ndarray], float]] = {
    "video": _mean_of_videos,
    "pooled": _pooled,
}


def _stacked(columns: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Name -> [K, F]; NaN in frames that do not have it, as MoveBench has masks of one alone."""
    names = {name: len(values) for column in columns for name, values in column.items()}
    return {
        name: np.stack([c.get(name, np.full(size, np.nan)) for c in columns], axis=1)
        for name, size in names.items()
    }


def _truth(item: Item, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The frames of the benchmark's video that are compared."""
    if item.video is None:
        raise UserError("the benchmark has no video of it, which FID and FVD compare with")
    left = deque(wanted.tolist())
    for number, frame in enumerate(iterate_frames(item.video)):
        if number == left[0]:
            left.popleft()
            yield frame
            if not left:
                return
    raise UserError(f"the benchmark's video is short: it has no frame {left[0]}")


def _true_masks(item: Item, index: int) -> np.ndarray | None:
    """Bool [K, H, W] of a frame, or None where the benchmark has no masks of it."""
    return object_masks(item.masks[index], item.labels) if index < len(item.masks) else None


def _any_object(found_KHW: np.ndarray, true_KHW: np.ndarray | None) -> np.ndarray:
    return _anywhere(found_KHW if true_KHW is None else np.concatenate([found_KHW, true_KHW]))


def _anywhere(masks_KHW: np.ndarray) -> np.ndarray:
    """Where any object is, bool [H, W]."""
    return np.logical_or.reduce(masks_KHW, axis=0)


def _score_frame(
    found_KHW: np.ndarray, true_KHW: np.ndarray | None, asked_K4: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The figures of one frame, [K] each."""
    found = found_KHW[:, None]
    boxes = bounding_boxes(found)
    height, width = found_KHW.shape[1:]
    diagonal = np.hypot(height, width)
    figures = {}
    if true_KHW is not None:
        true = true_KHW[:, None]
        figures["mask_iou"] = mask_iou(found, true)[:, 0]
        figures["box_iou"] = box_iou(boxes, bounding_boxes(true))[:, 0]
        figures["centroid_error"] = centroid_error(found, true)[:, 0] / diagonal
    elif asked_K4 is None:
        # Nothing to compare with in this frame: MoveBench has masks of frame 0 alone.
        return {}
    if asked_K4 is not None:
        asked = asked_K4[:, None] * np.array([width, height] * 2)
        figures["requested_box_iou"] = box_iou(boxes, asked)[:, 0]
        shift = _centres(boxes) - _centres(asked)
        error = np.linalg.norm(shift, axis=-1)[:, 0] / diagonal
        lost = np.isnan(boxes[:, 0]).any(axis=-1)
        error = np.where(lost, 0.5, error)
        figures["requested_centroid_error"] = np.where(np.isnan(asked[:, 0, 0]), np.nan, error)
    return figures


def _centres(boxes_KF4: np.ndarray) -> np.ndarray:
    return (boxes_KF4[..., :2] + boxes_KF4[..., 2:]) / 2
