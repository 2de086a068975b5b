"""Scores of generated videos against a benchmark, holding a few frames at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from flashmotion_jax.config import Resize
from flashmotion_jax.evaluation.benchmarks.base import Item, Problem, object_masks
from flashmotion_jax.evaluation.bootstrap import Interval, interval
from flashmotion_jax.evaluation.conditions import clipped, first_frame, requested_boxes
from flashmotion_jax.evaluation.metrics import VIDEO_METRICS, is_measured
from flashmotion_jax.evaluation.metrics.base import Features, Frame
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.segmenters import Segmenter
from flashmotion_jax.media.frames import find_video, iterate_frames
from flashmotion_jax.media.geometry import Fit, fit_frames
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats import read_wan_move


@dataclass(frozen=True)
class Score:
    """The scores of a video.

    Attributes:
      id: Id of the video.
      group: Its group by number of objects.
      values: Name of a video metric -> its `values`, for instance float64 `[K, F]` for objects.
      features: Name of a distance -> features of the generated and of the true video, `[N, D]`
        each.
    """

    id: str
    group: str
    values: Mapping[str, np.ndarray]
    features: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def score_frames(frames: Iterable[Frame], bench: str) -> dict[str, np.ndarray]:
    """Measures a video frame by frame.

    Args:
      frames: Its frames, with what they are compared with.
      bench: Name of the benchmark, which decides what is measured.

    Returns:
      Name of a video metric -> its values, for all that could be measured.
    """
    metrics = {
        name: metric() for name, metric in VIDEO_METRICS.items() if is_measured(metric, bench)
    }
    for frame in frames:
        for metric in metrics.values():
            metric.add(frame)
    found = {name: metric.values() for name, metric in metrics.items()}
    return {name: values for name, values in found.items() if values is not None}


@dataclass(frozen=True)
class Scorer:
    """Scores videos of any size.

    What is compared shows the same part of the picture. Masks are compared on the pixels of the
    benchmark or the video, whichever has fewer; the benchmark's frames, on those of the video. So a
    perfect video has the same masks and pixels.

    Attributes:
      predictions: Folder with `<id>.mp4`, `<id>.mkv`, or a folder `<id>` of images.
      segmenter: Finds the objects of the generated frames; None leaves out what needs masks.
      method_frames: See `Protocol`.
      tracks: Folder with `<id>_tracks.npy` of points that another program tracked in the generated
        video, starting from the benchmark's points on frame 0.
      features: Name of a distance -> function that computes its features.
      bench: Name of the benchmark, which decides what is measured.
      resize: See `Protocol`.
    """

    predictions: Path
    segmenter: Segmenter | None
    method_frames: int | None = None
    tracks: Path | None = None
    features: Mapping[str, Features] = field(default_factory=dict)
    bench: str = "folder"
    resize: Resize = "stretch"

    def __call__(self, item: Item) -> Score | Problem:
        """Scores a video; a missing, short or damaged one is a problem.

        Raises:
          OSError: The disk or the network failed, which says nothing about the video.
        """
        path = find_video(self.predictions, item.id)
        if not path.exists():
            return Problem(item.id, "no generated video")
        wanted = sampled_frames(item.num_frames, self.method_frames)
        try:
            values = score_frames(self._compared(item, path, wanted), self.bench)
            features = {
                name: (
                    compute(_generated(path, len(wanted))),
                    compute(self._truth(item, path, wanted)),
                )
                for name, compute in self.features.items()
            }
        except UserError as error:
            return Problem(item.id, str(error))
        return Score(item.id, item.group, values, features)

    def _compared(self, item: Item, path: Path, wanted: np.ndarray) -> Iterator[Frame]:
        """The generated frames, each with the frame of the benchmark that it is compared with."""
        segmenter = self.segmenter if item.labels else None
        fit = self._fit_of_masks(item, path)
        requested_KF4 = None if segmenter is None else requested_boxes(item)
        points_KF2 = None
        if requested_KF4 is not None:
            if fit is not None:
                requested_KF4 = _as_fractions_of(fit.visible, requested_KF4)
            points_KF2 = (requested_KF4[..., :2] + requested_KF4[..., 2:]) / 2
            requested_KF4 = clipped(requested_KF4)
        truth = repeat(None) if item.video is None else self._truth(item, path, wanted)
        tracks_FN2, true_tracks_FN2 = self._tracks(item, path, wanted)
        generated = _segmented(item, path, len(wanted), segmenter)
        count = 0
        for index, (pixels, masks), true_pixels in zip(wanted, generated, truth, strict=False):
            true_masks = None
            if index < len(item.masks) and fit is not None:
                true_masks = object_masks(item.masks[index], item.labels)
                true_masks, masks = fit.compared(true_masks, masks)
            yield Frame(
                pixels,
                true_pixels,
                masks,
                true_masks,
                requested_boxes=None if requested_KF4 is None else requested_KF4[:, index],
                requested_points=None if points_KF2 is None else points_KF2[:, index],
                points=None if tracks_FN2 is None else tracks_FN2[count],
                true_points=None if true_tracks_FN2 is None else true_tracks_FN2[count],
            )
            count += 1
        if count < len(wanted):
            raise UserError(f"{count} frames were segmented; {len(wanted)} are required")

    def _fit_of_masks(self, item: Item, path: Path) -> Fit | None:
        """How the benchmark's masks reach the size of the video; None without masks."""
        if not item.masks:
            return None
        height, width = object_masks(item.masks[0], item.labels).shape[1:]
        return Fit.of((height, width), _size(path), self.resize)

    def _truth(self, item: Item, path: Path, wanted: np.ndarray) -> Iterator[np.ndarray]:
        """The frames of the benchmark's video that are compared, in the size of the video."""
        size = _size(path)
        for frame in _true_frames(item, wanted):
            same = frame.shape[:2] == size
            yield frame if same else fit_frames(frame, *size, self.resize)

    def _tracks(
        self, item: Item, path: Path, wanted: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Tracks `[F, N, 2]` of the video and the benchmark, in the pixels of the latter."""
        if self.tracks is None or item.tracks is None:
            return None, None
        truth = read_wan_move(*item.tracks)
        found = read_wan_move(self.tracks / f"{item.id}_tracks.npy").points_FN2
        if len(found) < len(wanted) or found.shape[1] != truth.points_FN2.shape[1]:
            raise UserError(
                f"tracks of {found.shape[:2]} frames and points; expected at least {len(wanted)} "
                f"frames and the {truth.points_FN2.shape[1]} points of the benchmark"
            )
        height, width = first_frame(item).shape[:2]
        fit = Fit.of((height, width), _size(path), self.resize)
        visible_FN = truth.visible_FN[wanted]
        true_FN2 = truth.points_FN2[wanted]
        if fit.resized != fit.target:  # what the crop cut off cannot be followed
            low, high = np.split(fit.visible * np.array([width, height] * 2), 2)
            visible_FN = visible_FN & ((true_FN2 >= low) & (true_FN2 <= high)).all(axis=-1)
        true_FN2 = np.where(visible_FN[..., None], true_FN2, np.nan)
        return fit.points_back(found[: len(wanted)]), true_FN2


def sampled_frames(count: int, method_frames: int | None) -> np.ndarray:
    """The frames of the benchmark that frames 0, 1, ... of a generated video are compared with.

    Args:
      count: Number of frames that the benchmark compares.
      method_frames: See `Protocol`.

    Returns:
      int64 `[N]`, uniformly spaced from the first frame to the last.
    """
    if method_frames is None or method_frames >= count:
        return np.arange(count)
    return np.rint(np.linspace(0, count - 1, method_frames)).astype(np.int64)


def totals_of(
    values: Mapping[str, np.ndarray], protocol: Protocol
) -> dict[str, tuple[float, float]]:
    """Name of a video metric -> the total of the video; see `VideoMetric.total`."""
    return {
        name: metric.total(values[name], protocol.first_frame)
        for name, metric in VIDEO_METRICS.items()
        if name in values
    }


def summarize(scores: Iterable[Score], protocol: Protocol, seed: int = 0) -> dict[str, Interval]:
    """The numbers of a set of videos, with 95 % intervals over videos.

    Args:
      scores: One or more.
      protocol: Which frames count, and how they are averaged.
      seed: Seed of the bootstrap.

    Returns:
      Name of a video metric -> its interval, for those that any of the videos has.
    """
    of_videos = [totals_of(score.values, protocol) for score in scores]
    return {
        name: interval(
            np.array([totals.get(name, (0.0, np.nan)) for totals in of_videos]),
            metric.statistic(protocol.average),
            seed=seed,
        )
        for name, metric in VIDEO_METRICS.items()
        if any(name in totals for totals in of_videos)
    }


def _segmented(
    item: Item, path: Path, count: int, segmenter: Segmenter | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The generated frames, each with the masks found in it."""
    frames = _generated(path, count)
    if segmenter is None:
        yield from zip(frames, repeat(None), strict=False)
        return
    # A segmenter may read ahead, so frames wait here for their masks.
    waiting: deque[np.ndarray] = deque()

    def watched() -> Iterator[np.ndarray]:
        for frame in frames:
            waiting.append(frame)
            yield frame

    for masks_KHW in segmenter(item, watched()):
        yield waiting.popleft(), masks_KHW


def _generated(path: Path, count: int) -> Iterator[np.ndarray]:
    """The first `count` generated frames, of which there must be as many."""
    number = 0
    for frame in islice(iterate_frames(path), count):
        number += 1
        yield frame
    if number < count:
        raise UserError(f"{number} frames generated; {count} are required")


def _size(path: Path) -> tuple[int, int]:
    """Height and width of a generated video."""
    height, width = next(_generated(path, 1)).shape[:2]
    return height, width


def _as_fractions_of(box_4: np.ndarray, boxes_KF4: np.ndarray) -> np.ndarray:
    """Boxes as fractions of a box, instead of the frame that all of them are fractions of."""
    low, high = np.split(box_4, 2)
    return (boxes_KF4 - np.tile(low, 2)) / np.tile(high - low, 2)


def _true_frames(item: Item, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The frames of the benchmark's video that are compared."""
    if item.video is None:
        raise UserError("the benchmark lacks the video, which Fréchet distances compare with")
    left = deque(wanted.tolist())
    for number, frame in enumerate(iterate_frames(item.video)):
        if number == left[0]:
            left.popleft()
            yield frame
            if not left:
                return
    raise UserError(f"the benchmark's video is short: it has no frame {left[0]}")
