"""Functions that derive a trajectory from another: move, scale, pan, zoom, hold.

A change builds up from frame `start` to frame `end`, lasts until the last frame, and adds to the
existing motion. Changed objects get linear keyframes, or other points if they follow points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.keyframes import EASINGS, keyframes_from_boxes
from flashmotion_jax.trajectory.schema import Trajectory

_TOLERANCE = 0.1  # largest error of keyframes, in pixels of the canvas


def move(
    trajectory: Trajectory,
    object_id: int,
    dx: float,
    dy: float,
    *,
    start: int = 0,
    end: int | None = None,
    ease: str = "linear",
) -> Trajectory:
    """Moves one object.

    Args:
      trajectory: Trajectory to derive from; it is not changed.
      object_id: Id of the object.
      dx: Distance to the right, in widths of the canvas.
      dy: Distance down, in heights of the canvas.
      start: Last frame before the motion.
      end: Frame on which the motion is complete; None: the last frame.
      ease: Name of the easing in `keyframes.EASINGS`.

    Raises:
      UserError: The object, easing or range of frames does not exist, or a box moves too far away.
    """
    objects = [_find(trajectory, object_id)]
    return _changed(trajectory, objects, _shifted(dx, dy), start, end, ease)


def scale(
    trajectory: Trajectory,
    object_id: int,
    factor: float,
    *,
    start: int = 0,
    end: int | None = None,
    ease: str = "linear",
) -> Trajectory:
    """Scales the box of one object about its center; arguments as in `move`.

    Raises:
      UserError: As in `move`, or the factor is negative.
    """
    objects = [_find(trajectory, object_id)]
    return _changed(trajectory, objects, _scaled(factor), start, end, ease)


def pan(
    trajectory: Trajectory,
    dx: float,
    dy: float,
    *,
    start: int = 0,
    end: int | None = None,
    ease: str = "linear",
) -> Trajectory:
    """Moves all objects, like a camera that pans the opposite way; arguments as in `move`.

    Raises:
      UserError: As in `move`.
    """
    objects = range(len(trajectory.objects))
    return _changed(trajectory, objects, _shifted(dx, dy), start, end, ease)


def zoom(
    trajectory: Trajectory,
    factor: float,
    *,
    center: tuple[float, float] = (0.5, 0.5),
    start: int = 0,
    end: int | None = None,
    ease: str = "linear",
) -> Trajectory:
    """Scales all boxes about a point of the canvas, like a camera that zooms.

    Args:
      trajectory: Trajectory to derive from; it is not changed.
      factor: Scale; above 1 zooms in.
      center: Fixed point (x, y) in 0..1 of the canvas.
      start: As in `move`.
      end: As in `move`.
      ease: As in `move`.

    Raises:
      UserError: As in `move`, or the factor is negative.
    """
    objects = range(len(trajectory.objects))
    return _changed(trajectory, objects, _scaled(factor, center), start, end, ease)


def hold(trajectory: Trajectory, object_id: int, start: int, end: int) -> Trajectory:
    """Keeps one object still from frame `start` to `end`, after which it moves faster to catch up.

    Raises:
      UserError: The object or range of frames does not exist.
    """
    last = _check_frames(trajectory, start, end)
    index = _find(trajectory, object_id)
    # Frame `end` shows the box of `start`; the remaining motion is compressed into the rest.
    frames, times = [0, start, end], [0, start, start]
    if end < last:
        frames, times = [*frames, last], [*times, last]
    warped_F = np.interp(np.arange(last + 1), frames, times)
    boxes_F4 = trajectory.objects[index].boxes(warped_F)
    return with_boxes(trajectory, {index: boxes_F4})


def _changed(
    trajectory: Trajectory,
    indices: Iterable[int],
    target: Callable[[np.ndarray], np.ndarray],
    start: int,
    end: int | None,
    ease: str,
) -> Trajectory:
    """Blends the boxes of some objects into `target` of them, between two frames."""
    if ease not in EASINGS:
        raise UserError(f"{ease=}, expected one of {', '.join(EASINGS)}")
    end = trajectory.num_frames - 1 if end is None else end
    last = _check_frames(trajectory, start, end)
    elapsed_F = np.clip((np.arange(last + 1) - start) / (end - start), 0, 1)
    way_F1 = np.array([[1.0 if u == 1 else EASINGS[ease](u)] for u in elapsed_F.tolist()])
    boxes_KF4 = trajectory.boxes()
    changed = {k: boxes_KF4[k] + way_F1 * (target(boxes_KF4[k]) - boxes_KF4[k]) for k in indices}
    return with_boxes(trajectory, changed)


def with_boxes(trajectory: Trajectory, boxes: dict[int, np.ndarray]) -> Trajectory:
    """Replaces the motion of objects (by index) by boxes, float64 [F, 4], as linear keyframes."""
    tolerance = _TOLERANCE / np.array([trajectory.canvas.width, trajectory.canvas.height] * 2)
    frames_F = np.arange(trajectory.num_frames)
    objects = list(trajectory.objects)
    for k, boxes_F4 in boxes.items():
        if objects[k].points is not None:
            shown = zip(objects[k].shown(frames_F), boxes_F4[:, :2].tolist(), strict=True)
            points = tuple((x, y) if is_shown else None for is_shown, (x, y) in shown)
            objects[k] = replace(objects[k], points=points)
            continue
        keyframes = keyframes_from_boxes(frames_F, boxes_F4, tolerance)
        objects[k] = replace(objects[k], keyframes=keyframes)
    return replace(trajectory, objects=tuple(objects))


def _find(trajectory: Trajectory, object_id: int) -> int:
    ids = [item.id for item in trajectory.objects]
    if object_id not in ids:
        raise UserError(f"{object_id=}, expected one of {ids}")
    return ids.index(object_id)


def _check_frames(trajectory: Trajectory, start: int, end: int) -> int:
    last = trajectory.num_frames - 1
    if not 0 <= start < end <= last:
        raise UserError(f"{start=}, {end=}: expected 0 <= start < end <= {last}")
    return last


def _shifted(dx: float, dy: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda boxes_F4: boxes_F4 + np.tile([dx, dy], 2)


def _scaled(
    factor: float, center: tuple[float, float] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Scales boxes about a point; None: each about its own center."""
    if not factor >= 0:
        raise UserError(f"{factor=}, expected 0 or more; 1 changes nothing")

    def target(boxes_F4: np.ndarray) -> np.ndarray:
        own_F2 = (boxes_F4[:, :2] + boxes_F4[:, 2:]) / 2
        fixed = np.tile(own_F2 if center is None else center, 2)
        return fixed + factor * (boxes_F4 - fixed)

    return target
