"""What maps are drawn with: box outlines, painted masks, and points.

Box outlines are identical to OpenCV's, because the models were trained on maps drawn by OpenCV.

OpenCV moves a disc of integer radius along the rectangle, so a stroke is an odd number of pixels
wide and the outer corners are round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def stroke_radius(height: int, width: int) -> int:
    """Radius of the stroke in maps of this size: a stroke is 2 * radius + 1 pixels wide.

    MagicMotion draws with a thickness of min(height, width) // 100; OpenCV rounds the radius of
    lines thicker than one pixel up.

    Source: MagicMotion `trajectory_construction/plan_box.py`; OpenCV `ThickLine` (drawing.cpp).
    """
    thickness = min(height, width) // 100
    return (thickness + 1) // 2 if thickness > 1 else 0


def draw_box(
    frame_HW3: np.ndarray,
    box: tuple[int, int, int, int],
    color: tuple[int, int, int],
    radius: int,
) -> None:
    """Draws the outline of a box into a frame, like `cv2.rectangle`.

    Args:
      frame_HW3: uint8, changed in place.
      box: Pixels (x0, y0, x1, y1) of the center of the stroke, x0 <= x1 and y0 <= y1; may lie
        outside the frame.
      color: RGB, 0..255.
      radius: Radius of the stroke, see `stroke_radius`.
    """
    x0, y0, x1, y1 = box
    height, width = frame_HW3.shape[:2]
    top, left = max(y0 - radius, 0), max(x0 - radius, 0)
    bottom, right = max(min(y1 + radius + 1, height), top), max(min(x1 + radius + 1, width), left)
    columns = left, right
    # Between the corners, only the sides are drawn: a large box has few pixels of stroke.
    first, last = max(y0 + radius + 1, top), min(y1 - radius, bottom)
    if first >= last:
        _draw_rows(frame_HW3, box, color, radius, (top, bottom), columns)
        return
    for edge in (x0, x1):
        start, stop = max(edge - radius, left), max(min(edge + radius + 1, right), left)
        frame_HW3[first:last, start:stop] = color
    _draw_rows(frame_HW3, box, color, radius, (top, first), columns)
    _draw_rows(frame_HW3, box, color, radius, (last, bottom), columns)


def _draw_rows(
    frame_HW3: np.ndarray,
    box: tuple[int, int, int, int],
    color: tuple[int, int, int],
    radius: int,
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> None:
    """Draws the part of the outline that lies in some rows and columns."""
    x0, y0, x1, y1 = box
    (top, bottom), (left, right) = rows, columns
    y, x = np.arange(top, bottom)[:, None], np.arange(left, right)[None, :]
    beyond_y = np.maximum(0, np.maximum(y0 - y, y - y1))
    beyond_x = np.maximum(0, np.maximum(x0 - x, x - x1))
    inner_y = (y > y0 + radius) & (y < y1 - radius)
    inner_x = (x > x0 + radius) & (x < x1 - radius)
    stroke = (beyond_y**2 + beyond_x**2 <= radius**2) & ~(inner_y & inner_x)
    frame_HW3[top:bottom, left:right][stroke] = color


def draw_point(
    frame_HW3: np.ndarray, point: tuple[float, float], color: tuple[int, int, int], sigma: float
) -> None:
    """Draws a Gaussian into a frame, with the color of an object at its center.

    Where Gaussians overlap, each channel has the larger value, so their order does not matter.

    Args:
      frame_HW3: uint8, changed in place.
      point: (x, y) in pixels; the center of a pixel is at one half. A point outside the frame is
        not drawn.
      color: RGB, 0..255.
      sigma: Standard deviation in pixels.

    Source: the Gaussian maps of DragNUWA (arXiv:2308.08089) and DragAnything (arXiv:2403.07420),
      which combine objects by overwriting.
    """
    height, width = frame_HW3.shape[:2]
    x, y = point
    if not (0 <= x < width and 0 <= y < height):
        return
    reach = 4 * sigma  # beyond it, 255 rounds to 0
    left, right = max(math.floor(x - reach), 0), min(math.ceil(x + reach) + 1, width)
    top, bottom = max(math.floor(y - reach), 0), min(math.ceil(y + reach) + 1, height)
    squared_x, squared_y = (
        (np.arange(low, high) + 0.5 - center) ** 2
        for low, high, center in ((left, right, x), (top, bottom, y))
    )
    weight_HW = np.exp(-(squared_x[None, :] + squared_y[:, None]) / (2 * sigma**2))
    drawn_HW3 = np.rint(weight_HW[..., None] * np.array(color)).astype(np.uint8)
    area = frame_HW3[top:bottom, left:right]
    np.maximum(area, drawn_HW3, out=area)


def paint_masks(
    masks: Iterable[np.ndarray | tuple[slice, slice]],
    colors: list[tuple[int, int, int]],
    size: tuple[int, int],
) -> np.ndarray:
    """Paints masks on black, the largest first, so that small ones stay visible.

    Of equally large masks, the first is on top.

    Args:
      masks: bool [H, W], or the rows and columns of a rectangle, one per object; arrays are held in
        memory one at a time.
      colors: RGB, 0..255, one per object.
      size: (H, W).

    Returns:
      uint8 [H, W, 3].

    Source: supervision `MaskAnnotator`, which MagicData was painted with.
    """
    height, width = size
    frame_HW3 = np.zeros((height, width, 3), np.uint8)
    # One bit per pixel instead of a byte.
    kept = [mask if isinstance(mask, tuple) else np.packbits(mask) for mask in masks]
    for k in np.argsort([_area(one) for one in kept], kind="stable")[::-1]:
        inside = kept[k]
        if isinstance(inside, np.ndarray):
            inside = np.unpackbits(inside, count=height * width).view(bool).reshape(height, width)
        frame_HW3[inside] = colors[k]
    return frame_HW3


def _area(mask: np.ndarray | tuple[slice, slice]) -> int:
    """Number of pixels of a rectangle, or of a mask as packed bits."""
    if isinstance(mask, np.ndarray):
        return int(np.bitwise_count(mask).sum())
    rows, columns = mask
    return (rows.stop - rows.start) * (columns.stop - columns.start)
