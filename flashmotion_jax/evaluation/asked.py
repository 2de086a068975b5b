"""What a benchmark asks of a method: the boxes that objects shall follow, and the first frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashmotion_jax.evaluation.benchmarks import Item, object_masks
from flashmotion_jax.evaluation.steadiness import nearest
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
    """The image that a method is given, uint8 [H, W, 3].

    Raises:
      UserError: the benchmark has neither the image nor the video.
    """
    if item.image is not None:
        return read_image(item.image)
    if item.video is None:
        raise UserError(f"{item.id}: the benchmark has no first frame and no video of it")
    return next(iter(iterate_frames(item.video)))


def asked_boxes(item: Item) -> np.ndarray | None:
    """The boxes that the benchmark asks for, where it says more than the masks of its video.

    Returns:
      float64 [K, F, 4] in 0..1 of the frame, cut at its edges, in the order of the item's labels;
      NaN where a box is outside. None without a trajectory.json and without tracks of objects.

    Raises:
      UserError: the trajectory cannot be read, or does not speak of an object.
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
    boxes_KF4 = trajectory.boxes(item.num_frames)[[by_label[label] for label in item.labels]]
    return clipped(boxes_KF4)


def clipped(boxes_KF4: np.ndarray) -> np.ndarray:
    """Boxes in 0..1 cut at the edges of the frame; NaN for what is outside."""
    inside = boxes_KF4.clip(0, 1)
    empty = ((inside[..., 2:] - inside[..., :2]) <= 0).any(axis=-1, keepdims=True)
    return np.where(empty, np.nan, inside)


def trajectory_of(item: Item) -> Trajectory:
    """The motion of an item's objects: its trajectory.json, or made of its tracks or its masks.

    Raises:
      UserError: there is nothing to make it of, or it cannot be read.
    """
    if item.trajectory is not None:
        return Trajectory.load(item.trajectory)
    if item.tracks is not None:
        return _of_tracks(item, read_wan_move(*item.tracks))
    return _of_masks(item)


def _labels(one: TrackedObject) -> tuple[int, int]:
    """What the masks of an object may be labelled: its color, or its id."""
    red, green, blue = one.rgb
    return red << 16 | green << 8 | blue, one.id


def _of_masks(item: Item) -> Trajectory:
    """The boxes around the masks; where an object is hidden, its box goes straight on."""
    boxes: list[list[tuple[int, ...] | None]] = [[] for _ in item.labels]
    first = object_masks(item.masks[0], item.labels)
    for path in item.masks:
        for of_object, mask in zip(boxes, object_masks(path, item.labels), strict=True):
            of_object.append(bounding_box(mask))
    height, width = first.shape[1:]
    size = np.array([width, height] * 2, np.float64)
    objects = []
    for number, (label, of_object) in enumerate(zip(item.labels, boxes, strict=True), start=1):
        seen = np.array([f for f, box in enumerate(of_object) if box is not None])
        seen_boxes = np.array([box for box in of_object if box is not None]) / size
        objects.append(
            TrackedObject(
                id=number,
                keyframes=keyframes_from_boxes(seen, seen_boxes, _TOLERANCE / size),
                name=f"label {label:#x}",
                # A color of the benchmark is kept; a label that is a number gets the palette's.
                color=f"#{label:06x}" if label > 255 else None,
                mask=Mask.from_array(first[number - 1]),
            )
        )
    return Trajectory(Canvas(width, height), len(item.masks), 24.0, tuple(objects))


def _of_tracks(item: Item, tracks: Tracks) -> Trajectory:
    """The box of each mask of frame 0, moved by the median way of the points in it.

    Without masks each track is an object, with a box of a tenth of the frame's height.
    """
    height, width = first_frame(item).shape[:2]
    canvas = Canvas(width, height)
    if not item.masks:
        side = max(height / 10, 2)
        few = Tracks(tracks.points_FN2[:, :21], tracks.visible_FN[:, :21])
        return boxes_from_tracks(few, canvas, (side, side))
    size = np.array([width, height] * 2, np.float64)
    objects = []
    masks = object_masks(item.masks[0], item.labels)
    for number, mask in enumerate(masks, start=1):
        inside_N = _points_inside(tracks.points_FN2[0], mask, size[:2])
        if not inside_N.any():
            raise UserError(f"{item.id}: no track begins in the mask of object {number}")
        way_F2 = _median_way(tracks.points_FN2[:, inside_N], tracks.visible_FN[:, inside_N])
        box = np.array(Mask.from_array(mask).box())
        boxes_F4 = (box + np.tile(way_F2 / size[:2], 2)).clip(-10, 11)
        frames = np.arange(len(way_F2))
        keyframes = keyframes_from_boxes(frames, boxes_F4, _TOLERANCE / size)
        label = item.labels[number - 1]
        color = f"#{label:06x}" if label > 255 else None
        of_canvas = Mask.from_array(nearest(mask, height, width))
        objects.append(TrackedObject(number, keyframes, f"object {number}", color, of_canvas))
    return Trajectory(canvas, len(tracks.points_FN2), 16.0, tuple(objects))


def _points_inside(points_N2: np.ndarray, mask_HW: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which points lie in a mask, which may have another size than the picture."""
    height, width = mask_HW.shape
    x = np.floor(points_N2[:, 0] / size[0] * width).clip(0, width - 1).astype(int)
    y = np.floor(points_N2[:, 1] / size[1] * height).clip(0, height - 1).astype(int)
    return mask_HW[y, x]


def _median_way(points_FN2: np.ndarray, visible_FN: np.ndarray) -> np.ndarray:
    """The median shift since frame 0 of the visible points; where none is, the last one."""
    shifts = np.where(visible_FN[..., None], points_FN2 - points_FN2[0], np.nan)
    way = np.zeros((len(points_FN2), 2))
    for f in range(1, len(way)):
        seen = shifts[f][visible_FN[f]]
        way[f] = np.median(seen, axis=0) if len(seen) else way[f - 1]
    return way


def with_requests(item: Item, folder: Path | None) -> Item:
    """The item with the trajectory `<id>.json` of another folder.

    Raises:
      UserError: it is not there.
    """
    if folder is None:
        return item
    path = folder / f"{item.id}.json"
    if not path.is_file():
        raise UserError(f"no {path}: --requested needs a trajectory for each video")
    return item._replace(trajectory=path)
