"""MagicMotion's condition videos and PNG folders: masks on frame 0, then outlines or masks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from flashmotion_jax.config import MapKind
from flashmotion_jax.media.videos import read_video, write_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.drawing import stroke_radius
from flashmotion_jax.trajectory.keyframes import keyframes_from_boxes
from flashmotion_jax.trajectory.masks import Mask, bounding_box
from flashmotion_jax.trajectory.palette import PALETTE
from flashmotion_jax.trajectory.quantise import find_colors, label_frames
from flashmotion_jax.trajectory.render import render
from flashmotion_jax.trajectory.schema import Canvas, TrackedObject, Trajectory


def import_magicmotion(
    path: str | Path, map_kind: MapKind = "box", tolerance: float = 0.45
) -> Trajectory:
    """Reads a condition video: its masks become the objects' masks, its outlines their boxes.

    Objects in a color of MagicData's palette get its id. An edge outside the picture is placed so
    that the box keeps its last known size; an object that has left goes on as it went. Frames that
    are all black make the trajectory sparse. Objects that enter after frame 0 are not seen.

    Args:
      path: A video (lossy or not) or a folder of PNGs; the canvas gets its size.
      map_kind: What frames after the first show.
      tolerance: Pixels the keyframes may differ from the boxes read. Below a half, maps rendered
        at the same size are equal; a lossy video gives fewer keyframes at 1.5.

    Raises:
      UserError: The video cannot be read, or its first frame shows no object.
    """
    frames, fps = read_video(path)
    colors_C3 = find_colors(frames[0])
    if not len(colors_C3):
        raise UserError(f"{path}: frame 0 is black, expected the objects' colored masks")
    labels_FHW = label_frames(frames, colors_C3)
    num_frames, height, width = labels_FHW.shape
    drawn_F = labels_FHW.any(axis=(1, 2))
    shown = np.flatnonzero(drawn_F)
    size = np.array([width, height] * 2)
    radius = stroke_radius(height, width)
    objects = []
    for label, (object_id, color) in enumerate(_identities(colors_C3), start=1):
        pixels_FHW = labels_FHW[shown] == label
        boxes_F4 = (
            _outlined_boxes(pixels_FHW, radius) if map_kind == "box" else _extents(pixels_FHW)
        )
        # Where an object has left for good it may have gone further than the format allows.
        boxes_F4 = np.clip(boxes_F4 / size, -10, 11)
        keyframes = keyframes_from_boxes(shown, boxes_F4, tolerance / size)
        mask = Mask.from_array(pixels_FHW[0])
        objects.append(TrackedObject(object_id, keyframes, f"object {object_id}", color, mask))
    return Trajectory(
        canvas=Canvas(width, height),
        num_frames=num_frames,
        fps=fps,
        objects=tuple(sorted(objects, key=lambda item: item.id)),
        sparse_frames=None if drawn_F.all() else tuple(shown.tolist()),
    )


def export_magicmotion(trajectory: Trajectory, path: str | Path, map_kind: MapKind = "box") -> None:
    """Writes a condition video of the canvas's size: `.mp4` (lossless), or a folder of PNGs.

    Raises:
      UserError: The path cannot be written as a video.
    """
    canvas = trajectory.canvas
    maps = render(trajectory, canvas.height, canvas.width, map_kind, compat="magicmotion")
    write_video(path, maps, trajectory.fps, lossless=True)


def _identities(colors_C3: np.ndarray) -> Iterator[tuple[int, str | None]]:
    """An id and, where it is not the palette's, a color for each object."""
    ids = {tuple(color): row or len(PALETTE) for row, color in enumerate(PALETTE.tolist())}
    named = [ids.get(tuple(color)) for color in colors_C3.tolist()]
    free = (number for number in count(1) if number not in named)
    for object_id, color in zip(named, colors_C3.tolist(), strict=True):
        yield (object_id, None) if object_id else (next(free), "#" + bytes(color).hex())


def _extents(pixels_FHW: np.ndarray) -> np.ndarray:
    """The bounding boxes of an object's pixels, float64 [F, 4]; where it is gone, it goes on."""
    boxes_F4 = np.empty((len(pixels_FHW), 4))
    for frame, pixels_HW in enumerate(pixels_FHW):
        extent = bounding_box(pixels_HW)
        boxes_F4[frame] = extent or _continued(boxes_F4[:frame])
    return boxes_F4


def _continued(boxes_F4: np.ndarray) -> np.ndarray:
    return boxes_F4[-1] + (boxes_F4[-1] - boxes_F4[-2:][0])


def _outlined_boxes(pixels_FHW: np.ndarray, radius: int) -> np.ndarray:
    """The boxes whose outlines an object's pixels are (on frame 0: its mask), float64 [F, 4]."""
    height, width = pixels_FHW.shape[1:]
    boxes_F4 = np.empty((len(pixels_FHW), 4))
    for frame, pixels_HW in enumerate(pixels_FHW):
        extent = bounding_box(pixels_HW)
        if frame == 0 or extent is None:
            boxes_F4[frame] = extent or _continued(boxes_F4[:frame])
            continue
        known_width, known_height = boxes_F4[frame - 1, 2:] - boxes_F4[frame - 1, :2]
        x0, x1 = _edges(extent[0], extent[2], radius, width, known_width)
        y0, y1 = _edges(extent[1], extent[3], radius, height, known_height)
        boxes_F4[frame] = x0, y0, x1, y1
    return boxes_F4


def _edges(first: int, last: int, radius: int, length: int, known: float) -> tuple[float, float]:
    """The middles of the two strokes of an outline that covers pixels first..last (exclusive)."""
    start, end = first + radius, last - 1 - radius
    if first == 0 and last == length:
        return 0, length
    if first == 0:
        start = end - known
    elif last == length:
        end = start + known
    return start, max(start, end)
