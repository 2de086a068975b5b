from __future__ import annotations

import cv2
import numpy as np

from flashmotion_jax.trajectory import PALETTE, palette_colour

# supervision's ColorPalette.DEFAULT.
SUPERVISION = bytes.fromhex(
    "A351FB FF4040 FFA1A0 FF7633 FFB633 D1D435 4CFB12 94CF1A 40DE8A 1B9640 00D6C1 2E9CAA 00C4FF "
    "364797 6675FF 0019EF 863AFF 530087 CD3AFF FF97CA FF39C9"
)


def test_palette_is_supervisions_at_half_opacity():
    colours = np.frombuffer(SUPERVISION, np.uint8).reshape(1, -1, 3)
    painted = cv2.addWeighted(colours, 0.5, np.zeros_like(colours), 0.5, 0)
    np.testing.assert_array_equal(PALETTE, painted[0])


def test_ids_count_from_one_and_wrap():
    assert palette_colour(1) == (128, 32, 32)
    assert palette_colour(21) == (82, 40, 126)
    assert palette_colour(22) == palette_colour(1)
