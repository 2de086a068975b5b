"""Keyframes of boxes: interpolation, and fitting of keyframes to boxes on every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "smooth": lambda u: u * u * (3 - 2 * u),
    "hold": lambda u: 0.0,
    "in": lambda u: u * u,
    "out": lambda u: u * (2 - u),
}
"""Name -> progress in 0..1 at time u in 0..1 between a keyframe and the next."""

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) as fractions of the canvas; values outside 0..1 lie outside the canvas."""

Point = tuple[float, float]
"""(x, y) as fractions of the canvas."""


@dataclass(frozen=True)
class Keyframe:
    """A box at a frame.

    Attributes:
      frame: Frame number, from 0.
      box: Box on that frame.
      ease: Name in `EASINGS` of the motion to the next keyframe.
    """

    frame: int
    box: Box
    ease: str = "linear"


def interpolate(keyframes: Sequence[Keyframe], times_F: np.ndarray) -> np.ndarray:
    """Interpolates keyframes; before the first and after the last one, the box is constant.

    Args:
      keyframes: At least one, in order of time.
      times_F: Times in frames, not necessarily integers.

    Returns:
      float64 [F, 4].
    """
    frames = np.array([keyframe.frame for keyframe in keyframes], np.float64)
    boxes = np.array([keyframe.box for keyframe in keyframes], np.float64)
    times_F = np.clip(times_F, frames[0], frames[-1])
    start = np.searchsorted(frames, times_F, side="right") - 1
    end = np.minimum(start + 1, len(frames) - 1)
    elapsed = (times_F - frames[start]) / np.maximum(frames[end] - frames[start], 1)
    way = [EASINGS[keyframes[k].ease](u) for k, u in zip(start, elapsed, strict=True)]
    return boxes[start] + np.array(way)[:, None] * (boxes[end] - boxes[start])


def keyframes_from_boxes(
    frames_F: np.ndarray, boxes_F4: np.ndarray, tolerance_4: np.ndarray
) -> tuple[Keyframe, ...]:
    """Fits linear keyframes to boxes by Douglas-Peucker line simplification.

    Args:
      frames_F: Increasing frame numbers, at least one.
      boxes_F4: The box on each of these frames.
      tolerance_4: Largest error of x0, y0, x1, y1.
    """
    kept = {0, len(frames_F) - 1}
    spans = [(0, len(frames_F) - 1)]
    while spans:
        first, last = spans.pop()
        elapsed = (frames_F[first:last] - frames_F[first]) / (frames_F[last] - frames_F[first] or 1)
        line = boxes_F4[first] + elapsed[:, None] * (boxes_F4[last] - boxes_F4[first])
        error = (np.abs(boxes_F4[first:last] - line) / tolerance_4).max(axis=1, initial=0)
        worst = first + int(error.argmax()) if error.size else first
        if error.max(initial=0) > 1:
            kept.add(worst)
            spans += [(first, worst), (worst, last)]
    return tuple(Keyframe(int(frames_F[k]), tuple(boxes_F4[k].tolist())) for k in sorted(kept))
