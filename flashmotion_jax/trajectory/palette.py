"""The colors of objects in trajectory maps, in training data and in rendered maps alike."""

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

This is the default palette of supervision's MaskAnnotator, halved and rounded to even, because
MagicData's masks were drawn with opacity 0.5 on black.
"""


def palette_color(object_id: int) -> tuple[int, int, int]:
    """The RGB color, 0..255, of the object with this id (from 1) in MagicData."""
    red, green, blue = PALETTE[object_id % len(PALETTE)].tolist()
    return red, green, blue
