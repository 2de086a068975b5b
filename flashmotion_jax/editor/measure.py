"""The boxes that were asked for, and those of the video, where objects can be told exactly.

That is so for Sprites, by their colors. For other videos only the requested boxes are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flashmotion_jax.data.sprites import PALETTE
from flashmotion_jax.evaluation.iou import bounding_boxes, box_iou
from flashmotion_jax.evaluation.sprites import segment
from flashmotion_jax.media.images import cover_geometry
from flashmotion_jax.trajectory import Trajectory

#: Share of a box on frame 0 that a sprite's color must cover to be the object's.
_MIN_COVER = 0.15
_NO_COLORS = "boxes are measured in videos of Sprites alone, whose colors are exact"


def requested_boxes(trajectory: Trajectory, num_frames: int, height: int, width: int) -> np.ndarray:
    """The boxes in pixels of a video, float64 [K, F, 4]; they may leave it."""
    canvas = trajectory.canvas
    covered = cover_geometry((canvas.height, canvas.width), (height, width))
    resized_height, resized_width, top, left = covered
    size = np.array([resized_width, resized_height] * 2)
    return trajectory.boxes(num_frames) * size - np.array([left, top] * 2)


def report(trajectory: Trajectory, video: np.ndarray, of_sprites: bool) -> dict[str, Any]:
    """What the page shows beside a result.

    Args:
      trajectory: that was asked for.
      video: uint8 [F, H, W, 3].
      of_sprites: whether the model draws Sprites.

    Returns:
      `objects`, each with `id`, `name`, `rgb`, `requested` boxes [F][4] in 0..1 of the video,
      `measured` boxes or None, and `iou` [F] with None where there is nothing to compare; and
      `reason`, why boxes are missing, or None.
    """
    num_frames, height, width = video.shape[:3]
    boxes_KF4 = requested_boxes(trajectory, num_frames, height, width)
    colors = _colors(trajectory, video[0], boxes_KF4[:, 0]) if of_sprites else {}
    measured = _measured(video, colors)
    size = np.array([width, height] * 2)
    objects = []
    for item, boxes_F4 in zip(trajectory.objects, boxes_KF4, strict=True):
        found_F4 = measured.get(item.id)
        inside_F4 = np.clip(boxes_F4, 0, size)
        # What is outside the picture cannot be seen, so the part inside is what counts.
        gone_F = (inside_F4[:, 2:] - inside_F4[:, :2]).min(axis=1) < 1
        inside_F4[gone_F] = np.nan
        iou = None if found_F4 is None else box_iou(found_F4[None], inside_F4[None])[0]
        objects.append(
            {
                "id": item.id,
                "name": item.name,
                "rgb": list(item.rgb),
                "color": colors.get(item.id),
                "requested": _plain(boxes_F4 / size),
                "measured": None if found_F4 is None else _plain(found_F4 / size),
                "iou": None if iou is None else _plain(iou),
            }
        )
    return {"objects": objects, "reason": None if of_sprites else _NO_COLORS}


def _colors(trajectory: Trajectory, frame_HW3: np.ndarray, boxes_K4: np.ndarray) -> dict[int, str]:
    """The sprite's color of each object, by its name or by what its box shows on frame 0.

    Objects that share a color cannot be told apart and are left out.
    """
    labels_HW = segment(frame_HW3[None], list(PALETTE))[0]
    found: dict[int, str] = {}
    for item, box_4 in zip(trajectory.objects, boxes_K4, strict=True):
        named = [word for word in item.name.lower().split() if word in PALETTE]
        x0, y0, x1, y1 = np.maximum(np.rint(box_4), 0).astype(int).tolist()
        inside = labels_HW[y0:y1, x0:x1]
        counts = np.bincount(inside.ravel(), minlength=len(PALETTE) + 1)[1:]
        if named:
            found[item.id] = named[0]
        elif inside.size and counts.max() >= _MIN_COVER * inside.size:
            found[item.id] = list(PALETTE)[counts.argmax()]
    colors = list(found.values())
    return {number: color for number, color in found.items() if colors.count(color) == 1}


def _measured(video: np.ndarray, colors: dict[int, str]) -> dict[int, np.ndarray]:
    if not colors:
        return {}
    # Sprites that nobody asked about must not be taken for those somebody did.
    seen = np.unique(segment(video[:1], list(PALETTE)))
    others = [color for k, color in enumerate(PALETTE, 1) if k in seen]
    looked_for = list(dict.fromkeys([*colors.values(), *others]))
    labels_FHW = segment(video, looked_for)
    return {
        number: bounding_boxes(labels_FHW[None] == looked_for.index(color) + 1)[0]
        for number, color in colors.items()
    }


def _plain(values: np.ndarray) -> list[Any]:
    """Lists for JSON, rounded, None for what is not there."""
    return [
        _plain(value) if np.ndim(value) else (round(float(value), 5) if value == value else None)
        for value in values
    ]
