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

import jax
import jax.numpy as jnp

from flashmotion_jax.config.models import DiTConfig
from flashmotion_jax.models.adapters.controlnet import ControlNet


class SparseCtrl(ControlNet):
    """A ControlNet on a condition and the mask of the frames on which it is known.

    `prepare` takes the result of `condition.sparse_condition` in place of a trajectory's latents.
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
