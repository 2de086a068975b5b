from __future__ import annotations

import cv2
import numpy as np

from flashmotion_jax.trajectory import PALETTE, palette_color

# supervision's ColorPalette.DEFAULT.
SUPERVISION = bytes.fromhex(
    "A351FB FF4040 FFA1A0 FF7633 FFB633 D1D435 4CFB12 94CF1A 40DE8A 1B9640 00D6C1 2E9CAA 00C4FF "
    "364797 6675FF 0019EF 863AFF 530087 CD3AFF FF97CA FF39C9"
)


def test_palette_is_supervisions_at_half_opacity():
    colors = np.frombuffer(SUPERVISION, np.uint8).reshape(1, -1, 3)
    painted = cv2.addWeighted(colors, 0.5, np.zeros_like(colors), 0.5, 0)
    np.testing.assert_array_equal(PALETTE, painted[0])


def test_ids_count_from_one_and_have_colors_of_their_own():
    assert palette_color(1) == (128, 32, 32)
    assert palette_color(21) == (82, 40, 126)
    assert palette_color(22) != palette_color(1)
    colors = np.array([palette_color(id) for id in range(1, 10_000)])
    assert len(np.unique(colors, axis=0)) == 9_999
    assert colors.max(axis=-1)[21:].min() >= 64
    few = colors[:300].astype(int)
    distances = np.abs(few[:, None] - few).max(axis=-1) + 255 * np.eye(300, dtype=int)
    assert distances.min() == 15
