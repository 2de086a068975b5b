"""How much happens in a video: over space, which is sharpness, and over time, which is motion.

Both are read as a ratio to the real video. Blur raises IoU and lowers the gradient energy; a video
that stands still has all but temporal variance. Noise raises both, so neither is quality by itself.
"""

from __future__ import annotations

import numpy as np

from flashmotion_jax.runtime.errors import UserError


def gradient_energy(video_FHW3: np.ndarray) -> float:
    """Mean square of the differences between neighbouring pixels.

    Args:
      video_FHW3: uint8 or float [F, H, W, 3], H and W at least 2.

    Returns:
      The squared differences down plus those across, each a mean over frames, places and colors,
      in the squared unit of the video.

    Raises:
      UserError: the video has another shape.
    """
    x = _checked(video_FHW3, (1, 2, 2))
    return float(np.square(np.diff(x, axis=1)).mean() + np.square(np.diff(x, axis=2)).mean())


def temporal_variance(video_FHW3: np.ndarray) -> float:
    """Variance of a pixel over time, as a mean over places and colors.

    Args:
      video_FHW3: uint8 or float [F, H, W, 3], F at least 2.

    Returns:
      The variance in the squared unit of the video.

    Raises:
      UserError: the video has another shape.
    """
    return float(_checked(video_FHW3, (2, 1, 1)).var(axis=0).mean())


def _checked(video_FHW3: np.ndarray, smallest: tuple[int, int, int]) -> np.ndarray:
    shape = video_FHW3.shape
    if len(shape) != 4 or shape[-1] != 3 or any(np.less(shape[:3], smallest)):
        raise UserError(
            f"a video of shape {shape}: expected [F, H, W, 3] with F, H, W of at least {smallest}"
        )
    return video_FHW3.astype(np.float64)
