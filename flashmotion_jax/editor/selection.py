"""Rough masks by OpenCV, from a click or a box.

A click selects the connected region of similar color; a box, the object that it encloses.
"""

from __future__ import annotations

import cv2
import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import Mask

_ITERATIONS = 4
#: GrabCut runs on an image of at most this size, because its time grows with the pixels.
_LONG_SIDE = 640


def select_region(image_HW3: np.ndarray, x: float, y: float, tolerance: float) -> Mask:
    """Selects the connected region of similar color around a point.

    Args:
      image_HW3: uint8.
      x: Horizontal position of the point, 0..1.
      y: Vertical position of the point, 0..1.
      tolerance: Largest difference to the point in each of L, a and b, 0..255.

    Raises:
      UserError: The point is outside, or the tolerance below 0.
    """
    height, width = image_HW3.shape[:2]
    if not (0 <= x < 1 and 0 <= y < 1 and tolerance >= 0):
        raise UserError(f"{x=}, {y=}, {tolerance=}: expected a point in 0..1, and 0 or more")
    lab = cv2.cvtColor(cv2.medianBlur(np.ascontiguousarray(image_HW3), 3), cv2.COLOR_RGB2LAB)
    found = np.zeros((height + 2, width + 2), np.uint8)
    seed = int(x * width), int(y * height)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | 255 << 8
    limit = (tolerance,) * 3
    cv2.floodFill(lab, found, seed, (0, 0, 0), limit, limit, flags)
    # Fills specks of other colors inside the region.
    closed = cv2.morphologyEx(found[1:-1, 1:-1], cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return Mask.from_array(closed)


def select_in_box(image_HW3: np.ndarray, box: tuple[float, float, float, float]) -> Mask:
    """Selects the object in a box by GrabCut.

    Args:
      image_HW3: uint8.
      box: (x0, y0, x1, y1) in 0..1 around the object, with some background inside.

    Raises:
      UserError: The box is too small, or nothing in it differs from the background.
    """
    height, width = image_HW3.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    small = cv2.resize(image_HW3, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    size = np.array([small.shape[1], small.shape[0]] * 2)
    x0, y0, x1, y1 = np.rint(np.clip(box, 0, 1) * size).astype(int).tolist()
    if x1 - x0 < 3 or y1 - y0 < 3:
        raise UserError(f"{box=}: expected a box of at least 3 pixels inside the image")
    # GrabCut needs background outside the box, even if the box is the whole image.
    x0, y0 = max(x0, 1), max(y0, 1)
    labels = np.zeros(small.shape[:2], np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    rectangle = (x0, y0, x1 - x0, y1 - y0)
    cv2.setRNGSeed(0)
    cv2.grabCut(small, labels, rectangle, *models, _ITERATIONS, cv2.GC_INIT_WITH_RECT)
    inside = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    if not inside.any():
        raise UserError("nothing in the box differs from the background: draw a larger box")
    full = cv2.resize(inside, (width, height), interpolation=cv2.INTER_NEAREST)
    return Mask.from_array(full)
