"""Frames for tests of images and videos."""

from __future__ import annotations

import numpy as np


def smooth_frames(count=5, height=48, width=80):
    t, y, x = np.mgrid[:count, :height, :width]
    red, green, blue = 3 * y + 5 * t, 2 * x + 40, 120 + y - x
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)


def noisy_frames(count=4, height=33, width=47):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
