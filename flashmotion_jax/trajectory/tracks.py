"""Point tracks, the input of other trajectory-controlled models: from and to trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import check_num_boxes
from flashmotion_jax.trajectory.keyframes import Point, keyframes_from_boxes
from flashmotion_jax.trajectory.schema import Canvas, TrackedObject, Trajectory
from flashmotion_jax.trajectory.validation import MAX_ID


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks of N points over F frames.

    Attributes:
      points_FN2: float64, (x, y) in pixels of the image.
      visible_FN: bool; the position of an invisible point has no meaning.

    Raises:
      UserError: On construction: the shapes do not match, or a visible point is not finite.
    """

    points_FN2: np.ndarray
    visible_FN: np.ndarray

    def __post_init__(self):
        points, visible = self.points_FN2, self.visible_FN
        if points.ndim != 3 or points.shape[2] != 2 or not points.size:
            raise UserError(f"points {list(points.shape)}, expected [frames, points, 2]")
        check_num_boxes(points.shape[1], points.shape[0], "tracks")
        if visible.shape != points.shape[:2]:
            raise UserError(
                f"visibility {list(visible.shape)}, expected {list(points.shape[:2])} as the points"
            )
        if not np.isfinite(points[visible]).all():
            raise UserError("a visible point is NaN or infinite: mark it invisible, or correct it")


def boxes_from_tracks(
    tracks: Tracks,
    canvas: Canvas,
    box_size: tuple[float, float],
    fps: float = 24.0,
    tolerance: float = 0.45,
) -> Trajectory:
    """Makes an object of each track, with a box of a given size centered on the point.

    While a point is invisible, its box moves in a straight line from its last to its next visible
    position.

    Args:
      tracks: Up to 9999 points.
      canvas: Size of the image of the points.
      box_size: (width, height) in pixels.
      fps: Frames per second.
      tolerance: Largest distance of the keyframes from the points, in pixels.

    Raises:
      UserError: There are more points, one is never visible, the size is not positive, or the
        trajectory would be invalid.
    """
    if not min(box_size) > 0:
        raise UserError(f"{box_size=}, expected a positive (width, height) in pixels")
    size = np.array([canvas.width, canvas.height] * 2)
    half = np.array(box_size) / 2
    objects = []
    for n, frames in enumerate(_visible_frames(tracks)):
        centers = tracks.points_FN2[frames, n]
        boxes_F4 = np.concatenate([centers - half, centers + half], axis=1) / size
        keyframes = keyframes_from_boxes(frames, boxes_F4, tolerance / size)
        objects.append(TrackedObject(n + 1, keyframes, f"track {n}"))
    return Trajectory(canvas, len(tracks.points_FN2), fps, tuple(objects))


def points_from_tracks(tracks: Tracks, canvas: Canvas, fps: float = 24.0) -> Trajectory:
    """Makes an object of each track, which follows its points exactly.

    Args:
      tracks: Up to 9999 points.
      canvas: Size of the image of the points.
      fps: Frames per second.

    Raises:
      UserError: There are more points, one is never visible or inside the canvas, or the trajectory
        would be invalid.
    """
    size = np.array([canvas.width, canvas.height])
    objects = []
    for n, frames in enumerate(_visible_frames(tracks)):
        points_N2 = tracks.points_FN2[frames, n] / size
        if not ((points_N2 >= 0) & (points_N2 <= 1)).all(axis=1).any():
            raise UserError(
                f"track {n} is outside the image of {canvas.width} x {canvas.height} pixels on "
                "every frame: give it in pixels of the image, or leave it out"
            )
        points: list[Point | None] = [None] * len(tracks.points_FN2)
        for frame, (x, y) in zip(frames.tolist(), points_N2.tolist(), strict=True):
            points[frame] = (x, y)
        objects.append(TrackedObject(n + 1, name=f"track {n}", points=tuple(points)))
    return Trajectory(canvas, len(tracks.points_FN2), fps, tuple(objects))


def tracks_from_boxes(trajectory: Trajectory) -> Tracks:
    """The points and the centers of the boxes as point tracks, visible inside the canvas."""
    boxes_KF4 = trajectory.boxes()
    centers_FN2 = ((boxes_KF4[..., :2] + boxes_KF4[..., 2:]) / 2).swapaxes(0, 1)
    inside_FN = np.all((centers_FN2 >= 0) & (centers_FN2 < 1), axis=-1)
    visible_FN = inside_FN & trajectory.shown().swapaxes(0, 1)
    return Tracks(centers_FN2 * [trajectory.canvas.width, trajectory.canvas.height], visible_FN)


def _visible_frames(tracks: Tracks) -> list[np.ndarray]:
    """The frames on which each track is visible, at least one.

    Raises:
      UserError: A track has none, or there are more tracks than ids.
    """
    if (count := tracks.points_FN2.shape[1]) > MAX_ID:
        raise UserError(f"{count} tracks, expected at most {MAX_ID}: leave some out")
    frames = [np.flatnonzero(visible_F) for visible_F in tracks.visible_FN.T]
    if hidden := [n for n, seen in enumerate(frames) if not seen.size]:
        raise UserError(f"track {hidden[0]} is never visible: leave it out")
    return frames
