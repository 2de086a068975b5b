"""The colors of trajectory maps: one per object, the same in training data and in rendering."""

from __future__ import annotations

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
"""uint8 [21, 3], RGB; object `id` has row `id % 21`.

MagicData's masks are drawn at opacity 0.5 on black by supervision's MaskAnnotator, whose default
palette this is, halved and rounded to even.
"""


def palette_color(object_id: int) -> tuple[int, int, int]:
    """The RGB color, 0..255, that MagicData gives the object with this id (counted from 1)."""
    red, green, blue = PALETTE[object_id % len(PALETTE)].tolist()
    return red, green, blue
