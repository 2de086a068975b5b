"""Requested boxes, and boxes measured in a video of Sprites, whose objects have exact colors.

For other videos, only the requested boxes are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flashmotion_jax.config import Resize
from flashmotion_jax.data.sprites import PALETTE
from flashmotion_jax.evaluation.benchmarks.sprites import segment
from flashmotion_jax.evaluation.metrics.box_iou import bounding_boxes, box_iou
from flashmotion_jax.media.geometry import Fit
from flashmotion_jax.trajectory import Trajectory

#: Share of a box on frame 0 that a sprite must cover to be taken for the object.
_MIN_COVER = 0.15
_NO_COLORS = "Boxes are measured only in videos of Sprites alone, which have exact colors."


def report(
    trajectory: Trajectory, video: np.ndarray, of_sprites: bool, resize: Resize = "crop"
) -> dict[str, Any]:
    """Compares requested and measured boxes.

    Args:
      trajectory: The requested motion.
      video: The result, uint8 [F, H, W, 3].
      of_sprites: Whether the model was trained on Sprites.
      resize: How the image reached the video's size.

    Returns:
      `objects`, each with `id`, `name`, `rgb`, `requested` boxes [F][4] in 0..1 of the video,
      `measured` boxes or None, and `iou` [F] with None on frames without both boxes; and
      `reason`, why nothing is measured, or None.
    """
    num_frames, height, width = video.shape[:3]
    canvas = trajectory.canvas
    fit = Fit.of((canvas.height, canvas.width), (height, width), resize)
    boxes_KF4 = fit.boxes(trajectory.boxes(num_frames))
    colors = _colors(trajectory, video[0], boxes_KF4[:, 0]) if of_sprites else {}
    measured = _measured(video, colors)
    size = np.array([width, height] * 2)
    objects = []
    for item, boxes_F4 in zip(trajectory.objects, boxes_KF4, strict=True):
        found_F4 = measured.get(item.id)
        inside_F4 = np.clip(boxes_F4, 0, size)
        # Only the part of a box inside the image can be seen.
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
    """The color of each object's sprite, from its name or from the pixels of its box on frame 0.

    Objects that share a color cannot be distinguished and are left out.
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
    # Segmenting the other sprites too keeps them from being taken for the requested ones.
    seen = np.unique(segment(video[:1], list(PALETTE)))
    others = [color for k, color in enumerate(PALETTE, 1) if k in seen]
    candidates = list(dict.fromkeys([*colors.values(), *others]))
    labels_FHW = segment(video, candidates)
    return {
        number: bounding_boxes(labels_FHW[None] == candidates.index(color) + 1)[0]
        for number, color in colors.items()
    }


def _plain(values: np.ndarray) -> list[Any]:
    """Rounded lists for JSON, with None for NaN."""
    return [
        _plain(value) if np.ndim(value) else (round(float(value), 5) if value == value else None)
        for value in values
    ]
