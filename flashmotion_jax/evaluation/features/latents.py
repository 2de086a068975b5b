"""Features of the latents of videos, for a Fréchet distance."""

from __future__ import annotations

import numpy as np


def latent_features(latents: np.ndarray) -> np.ndarray:
    """Features of the latents of videos: four numbers of each channel.

    A VAE's normalized latents are a feature space that nobody has tuned for a metric, with channels
    of one scale. The mean of a channel holds color and content, its standard deviation contrast.
    The root mean square of its differences between neighboring latents holds detail (in space) and
    motion (in time), which the other two do not see.

    Args:
      latents: `[N, T, h, w, C]`, normalized; T, h and w at least 2.

    Returns:
      float64 `[N, 4 C]`.

    Raises:
      ValueError: The latents have another shape.
    """
    x = np.asarray(latents, np.float64)
    if x.ndim != 5 or min(x.shape[1:4]) < 2:
        raise ValueError(
            f"latents of shape {x.shape}: expected [N, T, h, w, C] with T, h and w of at least 2"
        )
    vertical, horizontal = _mean_square(np.diff(x, axis=2)), _mean_square(np.diff(x, axis=3))
    return np.concatenate(
        [
            x.mean(axis=(1, 2, 3)),
            x.std(axis=(1, 2, 3)),
            np.sqrt(vertical + horizontal),
            np.sqrt(_mean_square(np.diff(x, axis=1))),
        ],
        axis=1,
    )


def _mean_square(x_NTHWC: np.ndarray) -> np.ndarray:
    return np.square(x_NTHWC).mean(axis=(1, 2, 3))
