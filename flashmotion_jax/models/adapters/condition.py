"""What an adapter is given that knows the trajectory on some frames."""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", jax.Array, np.ndarray)


def sparse_condition(latents: Array, known: Array) -> Array:
    """Hides what is not known, and appends the mask of what is.

    Args:
      latents: `[..., T, h, w, C]`, with the latents of a trajectory map on each known frame, which
        is encoded alone: latents of a video would tell of the frames before it.
      known: bool `[..., T]`.

    Returns:
      `[..., T, h, w, C + 1]`. Zeros are latents of some picture, too: only the mask, in the last
      channel, tells them from unknown frames.
    """
    xp = latents.__array_namespace__()
    known = known[..., None, None, None]
    mask = xp.broadcast_to(known, (*latents.shape[:-1], 1)).astype(latents.dtype)
    return xp.concatenate([xp.where(known, latents, xp.zeros_like(latents)), mask], axis=-1)
