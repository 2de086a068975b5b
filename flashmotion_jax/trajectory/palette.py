"""The colors of objects in trajectory maps, in training data and in rendered maps alike."""

from __future__ import annotations

from functools import cache

import numpy as np

PALETTE = np.array(
    [
        (82, 40, 126), (128, 32, 32), (128, 80, 80), (128, 59, 26), (128, 91, 26), (104, 106, 26),
        (38, 126, 9), (74, 104, 13), (32, 111, 69), (14, 75, 32), (0, 107, 96), (23, 78, 85),
        (0, 98, 128), (27, 36, 76), (51, 58, 128), (0, 12, 120), (67, 29, 128), (42, 0, 68),
        (102, 29, 128), (128, 76, 101), (128, 28, 100),
    ],
    np.uint8,
)  # fmt: skip
"""uint8 [21, 3], RGB; object `id` has row `id % 21`, for ids up to 21.

This is the default palette of supervision's MaskAnnotator, halved and rounded to even, because
MagicData's masks were drawn with opacity 0.5 on black.
"""


def palette_color(object_id: int) -> tuple[int, int, int]:
    """The default color, RGB 0..255, of the object with this id, from 1 to 9999.

    Up to id 21 it is MagicData's, beyond that one of `_further_colors`; no two ids share a color.
    """
    if object_id <= len(PALETTE):
        red, green, blue = PALETTE[object_id % len(PALETTE)].tolist()
    else:
        red, green, blue = _further_colors()[object_id - len(PALETTE) - 1].tolist()
    return red, green, blue


@cache
def _further_colors() -> np.ndarray:
    """Colors for ids above 21, uint8 [N, 3]: the points of ever finer grids, in a mixed order.

    They are as far as possible from each other and from `PALETTE`: 16 in some channel for the first
    498 colors, 8 for the next thousands. The editor computes the same in `palette.js`.
    """
    levels = []
    for step in (32, 16, 8):
        count = 256 // step
        # An odd factor visits every point once; a golden one keeps consecutive points apart.
        points = np.arange(count**3) * (int(0.618 * count**3) | 1) % count**3
        digits = np.stack([points // count**2, points // count % count, points % count], axis=-1)
        colors = step // 2 + step * digits
        distances = np.abs(colors[:, None] - PALETTE).max(axis=-1).min(axis=1)
        levels.append(colors[(colors.max(axis=-1) >= 64) & (distances >= step // 2)])
    return np.concatenate(levels).astype(np.uint8)
