"""Box outlines identical to OpenCV's, because the models were trained on maps drawn by OpenCV.

OpenCV moves a disc of integer radius along the rectangle, so a stroke is an odd number of pixels
wide and the outer corners are round.
"""

from __future__ import annotations

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
    y, x = np.arange(top, bottom)[:, None], np.arange(left, right)[None, :]
    beyond_y = np.maximum(0, np.maximum(y0 - y, y - y1))
    beyond_x = np.maximum(0, np.maximum(x0 - x, x - x1))
    inner_y = (y > y0 + radius) & (y < y1 - radius)
    inner_x = (x > x0 + radius) & (x < x1 - radius)
    stroke = (beyond_y**2 + beyond_x**2 <= radius**2) & ~(inner_y & inner_x)
    frame_HW3[top:bottom, left:right][stroke] = color


def paint_masks(masks_KHW: np.ndarray, colors: list[tuple[int, int, int]]) -> np.ndarray:
    """Paints masks on black, the largest first, so that small ones stay visible.

    Of equally large masks, the first is on top.

    Args:
      masks_KHW: bool, one mask per object.
      colors: RGB, 0..255, one per object.

    Returns:
      uint8 [H, W, 3].

    Source: supervision `MaskAnnotator`, which MagicData was painted with.
    """
    frame_HW3 = np.zeros((*masks_KHW.shape[1:], 3), np.uint8)
    areas = masks_KHW.sum(axis=(1, 2))
    for k in np.argsort(areas, kind="stable")[::-1]:
        frame_HW3[masks_KHW[k]] = colors[k]
    return frame_HW3
