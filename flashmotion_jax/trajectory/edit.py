"""Building blocks that make one trajectory from another: move, scale, pan, zoom, hold.

A change is spread over the frames from `start` to `end` and stays after that; it comes on top of
the motion that is there. The objects it touches get linear keyframes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.keyframes import EASINGS, interpolate, keyframes_from_boxes
from flashmotion_jax.trajectory.schema import Trajectory

_TOLERANCE = 0.1  # pixels of the canvas between a dense motion and its keyframes


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
      trajectory: Stays as it is.
      object_id: Which object.
      dx: To the right, in widths of the canvas.
      dy: Down, in heights of the canvas.
      start: The last frame before anything moves.
      end: The frame on which the move is complete; None: the last.
      ease: Name in `keyframes.EASINGS` of the way from the one to the other.

    Raises:
      UserError: There is no such object, easing or range of frames, or a box goes too far.
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
    """Scales one object's box about its own centre; arguments as in `move`.

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
    """Moves all objects, as a camera that pans the other way would; arguments as in `move`.

    Raises:
      UserError: As in `move`.
    """
    objects = range(len(trajectory.objects))
    return _changed(trajectory, objects, _shifted(dx, dy), start, end, ease)


def zoom(
    trajectory: Trajectory,
    factor: float,
    *,
    centre: tuple[float, float] = (0.5, 0.5),
    start: int = 0,
    end: int | None = None,
    ease: str = "linear",
) -> Trajectory:
    """Scales all boxes about one point of the canvas, as a camera that comes closer would.

    Args:
      trajectory: Stays as it is.
      factor: Above 1 the camera comes closer.
      centre: (x, y) in 0..1 of the canvas, the point that stays where it is.
      start: As in `move`.
      end: As in `move`.
      ease: As in `move`.

    Raises:
      UserError: As in `move`, or the factor is negative.
    """
    objects = range(len(trajectory.objects))
    return _changed(trajectory, objects, _scaled(factor, centre), start, end, ease)


def hold(trajectory: Trajectory, object_id: int, start: int, end: int) -> Trajectory:
    """Keeps one object still from frame `start` to `end`; the rest of its way it goes faster.

    Raises:
      UserError: There is no such object or range of frames.
    """
    last = _check_frames(trajectory, start, end)
    index = _find(trajectory, object_id)
    # Frame `end` shows what `start` did, and time then catches up, so that it arrives as before.
    frames, times = [0, start, end], [0, start, start]
    if end < last:
        frames, times = [*frames, last], [*times, last]
    warped_F = np.interp(np.arange(last + 1), frames, times)
    boxes_F4 = interpolate(trajectory.objects[index].keyframes, warped_F)
    return _with_boxes(trajectory, {index: boxes_F4})


def _changed(
    trajectory: Trajectory,
    indices: Iterable[int],
    target: Callable[[np.ndarray], np.ndarray],
    start: int,
    end: int | None,
    ease: str,
) -> Trajectory:
    """Leads the boxes of some objects over to `target` of them, between two frames."""
    if ease not in EASINGS:
        raise UserError(f"{ease=}, expected one of {', '.join(EASINGS)}")
    end = trajectory.num_frames - 1 if end is None else end
    last = _check_frames(trajectory, start, end)
    elapsed_F = np.clip((np.arange(last + 1) - start) / (end - start), 0, 1)
    way_F1 = np.array([[1.0 if u == 1 else EASINGS[ease](u)] for u in elapsed_F.tolist()])
    boxes_KF4 = trajectory.boxes()
    changed = {k: boxes_KF4[k] + way_F1 * (target(boxes_KF4[k]) - boxes_KF4[k]) for k in indices}
    return _with_boxes(trajectory, changed)


def _with_boxes(trajectory: Trajectory, boxes: dict[int, np.ndarray]) -> Trajectory:
    """Gives some objects (by index) a dense motion, float64 [F, 4], as linear keyframes."""
    tolerance = _TOLERANCE / np.array([trajectory.canvas.width, trajectory.canvas.height] * 2)
    frames_F = np.arange(trajectory.num_frames)
    objects = list(trajectory.objects)
    for k, boxes_F4 in boxes.items():
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
    factor: float, centre: tuple[float, float] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Scales boxes about a point, or each about its own centre."""
    if not factor >= 0:
        raise UserError(f"{factor=}, expected 0 or more; 1 changes nothing")

    def target(boxes_F4: np.ndarray) -> np.ndarray:
        own_F2 = (boxes_F4[:, :2] + boxes_F4[:, 2:]) / 2
        fixed = np.tile(own_F2 if centre is None else centre, 2)
        return fixed + factor * (boxes_F4 - fixed)

    return target
