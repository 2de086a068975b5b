"""What a benchmark gives a method: the first frame and the boxes that objects are to follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flashmotion_jax.evaluation.benchmarks.base import Item, object_masks
from flashmotion_jax.evaluation.metrics.temporal import nearest
from flashmotion_jax.media.frames import iterate_frames
from flashmotion_jax.media.images import read_image
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats import read_wan_move
from flashmotion_jax.trajectory.keyframes import keyframes_from_boxes
from flashmotion_jax.trajectory.masks import Mask, bounding_box
from flashmotion_jax.trajectory.schema import Canvas, TrackedObject, Trajectory
from flashmotion_jax.trajectory.tracks import Tracks, boxes_from_tracks

#: Pixels that keyframes may differ from the boxes of masks: maps of the same size are equal.
_TOLERANCE = 0.45


def first_frame(item: Item) -> np.ndarray:
    """The image that a method is given, uint8 `[H, W, 3]`.

    Raises:
      UserError: The benchmark has neither the image nor the video.
    """
    if item.image is not None:
        return read_image(item.image)
    if item.video is None:
        raise UserError(f"{item.id}: the benchmark has no first frame and no video of it")
    return next(iter(iterate_frames(item.video)))


def requested_boxes(item: Item) -> np.ndarray | None:
    """The boxes that objects are to follow, if the benchmark has more than masks of its video.

    Returns:
      float64 `[K, F, 4]` as fractions of the frame, in the order of the item's labels; NaN where an
      object is hidden. None without a trajectory.json and without tracks of objects.

    Raises:
      UserError: The trajectory cannot be read, or lacks an object.
    """
    if not item.labels or (item.trajectory is None and item.tracks is None):
        return None
    trajectory = trajectory_of(item)
    by_label = {label: i for i, one in enumerate(trajectory.objects) for label in _labels(one)}
    missing = [label for label in item.labels if label not in by_label]
    if missing:
        raise UserError(
            f"{item.trajectory}: no object has the color or id of the masks' label {missing[0]:#x}"
        )
    order = [by_label[label] for label in item.labels]
    shown_KF = trajectory.shown(item.num_frames)[order]
    return np.where(shown_KF[..., None], trajectory.boxes(item.num_frames)[order], np.nan)


def clipped(boxes_KF4: np.ndarray) -> np.ndarray:
    """Boxes as fractions of a frame, cut at its edges; NaN for a box outside."""
    inside = boxes_KF4.clip(0, 1)
    empty = ((inside[..., 2:] - inside[..., :2]) <= 0).any(axis=-1, keepdims=True)
    return np.where(empty, np.nan, inside)


def trajectory_of(item: Item) -> Trajectory:
    """The motion of an item's objects: its trajectory.json, or made of its tracks or its masks.

    Raises:
      UserError: The item has none of them, or they cannot be read.
    """
    if item.trajectory is not None:
        return Trajectory.load(item.trajectory)
    if item.tracks is not None:
        return _of_tracks(item, read_wan_move(*item.tracks))
    return _of_masks(item.masks, item.labels)


def longer_motion(item: Item, num_frames: int) -> Trajectory:
    """The motion for a video that is longer than what is compared.

    Objects follow the benchmark's later masks as long as there are any, and then stay in place.

    Args:
      item: The video of the benchmark.
      num_frames: Number of frames, at least those that are compared.

    Raises:
      UserError: As in `trajectory_of`.
    """
    if item.trajectory is None and item.tracks is None:
        masks = (*item.masks, *item.later_masks)[:num_frames]
        trajectory, covered = _of_masks(masks, item.labels), len(masks)
    else:
        trajectory, covered = trajectory_of(item), item.num_frames
    # A trajectory is stretched to the compared frames, and is constant after its last keyframe.
    pace = (trajectory.num_frames - 1) / max(covered - 1, 1)
    return replace(trajectory, num_frames=1 + round(pace * (num_frames - 1)))


def with_requests(item: Item, folder: Path | None) -> Item:
    """The item with the trajectory `<id>.json` of another folder.

    Raises:
      UserError: The folder lacks it.
    """
    if folder is None:
        return item
    path = folder / f"{item.id}.json"
    if not path.is_file():
        raise UserError(f"no {path}: --requested needs a trajectory for each video")
    return replace(item, trajectory=path)


def _labels(one: TrackedObject) -> tuple[int, int]:
    """The labels that the masks of an object may have: its packed color, or its id."""
    red, green, blue = one.rgb
    return red << 16 | green << 8 | blue, one.id


def _color(label: int) -> str | None:
    """A packed color as "#rrggbb"; None for an index, which gets a color of the palette."""
    return f"#{label:06x}" if label > 255 else None


def _of_masks(masks: Sequence[Path], labels: tuple[int, ...]) -> Trajectory:
    """The boxes around the masks, interpolated where an object is hidden."""
    boxes: list[list[tuple[int, ...] | None]] = [[] for _ in labels]
    first = object_masks(masks[0], labels)
    for path in masks:
        for of_object, mask in zip(boxes, object_masks(path, labels), strict=True):
            of_object.append(bounding_box(mask))
    height, width = first.shape[1:]
    size = np.array([width, height] * 2, np.float64)
    objects = []
    for number, (label, of_object) in enumerate(zip(labels, boxes, strict=True), start=1):
        seen = np.array([f for f, box in enumerate(of_object) if box is not None])
        seen_boxes = np.array([box for box in of_object if box is not None]) / size
        objects.append(
            TrackedObject(
                id=number,
                keyframes=keyframes_from_boxes(seen, seen_boxes, _TOLERANCE / size),
                name=f"label {label:#x}",
                color=_color(label),
                mask=Mask.from_array(first[number - 1]),
            )
        )
    return Trajectory(Canvas(width, height), len(masks), 24.0, tuple(objects))


def _of_tracks(item: Item, tracks: Tracks) -> Trajectory:
    """The box of each mask of frame 0, moved by the median displacement of the points in it.

    Without masks, each track is an object with a box of a tenth of the frame's height.
    """
    height, width = first_frame(item).shape[:2]
    canvas = Canvas(width, height)
    if not item.masks:
        side = max(height / 10, 2)
        return boxes_from_tracks(tracks, canvas, (side, side))
    size = np.array([width, height] * 2, np.float64)
    objects = []
    masks = object_masks(item.masks[0], item.labels)
    for number, mask in enumerate(masks, start=1):
        inside_N = _points_inside(tracks.points_FN2[0], mask, size[:2])
        if not inside_N.any():
            raise UserError(f"{item.id}: no track begins in the mask of object {number}")
        shift_F2 = _median_shift(tracks.points_FN2[:, inside_N], tracks.visible_FN[:, inside_N])
        box = np.array(Mask.from_array(mask).box())
        boxes_F4 = (box + np.tile(shift_F2 / size[:2], 2)).clip(-10, 11)
        frames = np.arange(len(shift_F2))
        keyframes = keyframes_from_boxes(frames, boxes_F4, _TOLERANCE / size)
        color = _color(item.labels[number - 1])
        of_canvas = Mask.from_array(nearest(mask, height, width))
        objects.append(TrackedObject(number, keyframes, f"object {number}", color, of_canvas))
    return Trajectory(canvas, len(tracks.points_FN2), 16.0, tuple(objects))


def _points_inside(points_N2: np.ndarray, mask_HW: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which points lie in a mask, whose size may differ from the image's (width, height)."""
    height, width = mask_HW.shape
    x = np.floor(points_N2[:, 0] / size[0] * width).clip(0, width - 1).astype(int)
    y = np.floor(points_N2[:, 1] / size[1] * height).clip(0, height - 1).astype(int)
    return mask_HW[y, x]


def _median_shift(points_FN2: np.ndarray, visible_FN: np.ndarray) -> np.ndarray:
    """Median displacement of the visible points since frame 0, `[F, 2]`.

    Where no point is visible, it stays as it was on the frame before.
    """
    shifts = np.where(visible_FN[..., None], points_FN2 - points_FN2[0], np.nan)
    median_F2 = np.zeros((len(points_FN2), 2))
    for f in range(1, len(median_F2)):
        seen = shifts[f][visible_FN[f]]
        median_F2[f] = np.median(seen, axis=0) if len(seen) else median_F2[f - 1]
    return median_F2
