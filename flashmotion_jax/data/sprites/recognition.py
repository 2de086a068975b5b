"""Whether a picture may be a frame of Sprites: colored shapes before a muted background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flashmotion_jax.data.sprites.captions import VOCABULARY
from flashmotion_jax.data.sprites.scene import PALETTE

#: Largest distance, of 255 levels, at which a pixel has a color: more than JPEG changes it by.
_TOLERANCE = 24.0
#: Saturation, (max - min) / max, below which a pixel belongs to a background.
_MUTED = 0.3
#: Darkest brightness of a sprite relative to its color, a little below that of its textures.
_DARK = 0.5
#: Largest step between neighboring pixels of a background, of 255 levels.
_SMOOTH = 20.0
#: Share of the pixels that must have the colors of Sprites. Edges do not: the lowest share is 0.87
#: of 600 frames, and 0.57 of 100 as JPEG of quality 70; of 11 color photographs 0.37 is highest.
_MIN_SHARE = 0.55


def is_of_sprites(words: Sequence[str] | None) -> bool:
    """Whether a model was trained on Sprites.

    Args:
      words: What its tokenizer knows; None if it splits words into pieces.
    """
    return words is not None and set(VOCABULARY) <= set(words)


def looks_like_sprites(image_HW3: np.ndarray) -> bool:
    """Whether most pixels are of a color of `PALETTE`, or of a background.

    The colors of a background lie on a line between two muted ones, and change slowly. A smooth
    photograph of muted colors, for instance of fog, can pass.

    Args:
      image_HW3: uint8 `[H, W, 3]`, of the size of the model's videos.
    """
    return known_share(image_HW3) >= _MIN_SHARE


def known_share(image_HW3: np.ndarray) -> float:
    """Share of the pixels that have the colors of Sprites; see `looks_like_sprites`."""
    pixels_HW3 = image_HW3.astype(np.float64)
    pixels_N3 = pixels_HW3.reshape(-1, 3)
    brightest_N = pixels_N3.max(axis=1)
    is_muted_N = brightest_N - pixels_N3.min(axis=1) <= _MUTED * np.maximum(brightest_N, 32)
    is_muted_N &= _is_smooth(pixels_HW3).ravel()
    known_N = _of_palette(pixels_N3)
    if is_muted_N.any():
        known_N[is_muted_N] |= _near_a_line(pixels_N3[is_muted_N])
    return float(known_N.mean())


def _is_smooth(pixels_HW3: np.ndarray) -> np.ndarray:
    """Whether pixels are similar to those to the left and above: bool `[H, W]`."""
    steps = [np.abs(np.diff(pixels_HW3, axis=axis)).max(axis=-1) for axis in (0, 1)]
    down_HW, across_HW = np.pad(steps[0], ((1, 0), (0, 0))), np.pad(steps[1], ((0, 0), (1, 0)))
    return np.maximum(down_HW, across_HW) <= _SMOOTH


def _of_palette(pixels_N3: np.ndarray) -> np.ndarray:
    """Whether pixels are of a color of the palette, or of a darker shade of it: bool `[N]`."""
    colors_K3 = np.array(list(PALETTE.values()), np.float64)
    light_NK = pixels_N3 @ colors_K3.T / np.square(colors_K3).sum(axis=1)
    light_NK = np.clip(light_NK, _DARK, 1)
    distance_NK = np.linalg.norm(pixels_N3[:, None] - light_NK[..., None] * colors_K3, axis=-1)
    return distance_NK.min(axis=1) <= _TOLERANCE


def _near_a_line(pixels_N3: np.ndarray) -> np.ndarray:
    """Whether pixels are near the line that fits most of them: bool `[N]`."""
    centered_N3 = pixels_N3 - np.median(pixels_N3, axis=0)
    direction_3 = np.linalg.eigh(centered_N3.T @ centered_N3)[1][:, -1]
    across_N3 = centered_N3 - (centered_N3 @ direction_3)[:, None] * direction_3
    return np.linalg.norm(across_N3, axis=1) <= _TOLERANCE / 2
