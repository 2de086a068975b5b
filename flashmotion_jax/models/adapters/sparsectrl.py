"""The sparse adapter: a copy of the DiT's blocks that sees the trajectory on some frames only.

Unlike the ControlNet it is not given the noisy latents. On frames where nothing is known they would
be its only input, and copied layers treat them as the content of the video. Its input is
`conv(0) + embed(concat(condition, mask))`; as the first term is the bias of the DiT's patch
embedding, one embedding of condition and mask is the same. The blocks attend to all frames, which
carries the condition to those where it is unknown.

Source: Guo et al., SparseCtrl, arXiv:2311.16933, section 3.2; `set_noisy_sample_input_to_zero` and
`concate_conditioning_mask` of its published models.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.config.models import DiTConfig
from flashmotion_jax.models.adapters.controlnet import ControlNet

Array = TypeVar("Array", jax.Array, np.ndarray)


class SparseCtrl(ControlNet):
    """A ControlNet on a condition and the mask of the frames on which it is known.

    `prepare` takes the result of `sparse_condition` in place of a trajectory's latents.
    """

    takes_known_frames = True

    @classmethod
    def input_channels(cls, config: object, dit_config: DiTConfig) -> int:
        """Channels of the condition and of the mask."""
        del config
        return dit_config.in_channels + 1

    def channels(self, trajectory: jax.Array, latents: jax.Array) -> jax.Array:
        """Returns the condition; the noisy latents are not used."""
        del latents
        return trajectory

    def input_kernel(self, kernel: jax.Array, dit_config: DiTConfig) -> jax.Array:
        """Returns zeros: training starts from a condition that is not seen."""
        del dit_config
        return jnp.zeros_like(self.patch_embedding.kernel[...], kernel.dtype)


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
