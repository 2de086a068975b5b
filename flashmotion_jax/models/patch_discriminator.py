"""A discriminator of small patches of a few consecutive frames, for an autoencoder's decoder.

Source: Isola et al., arXiv:1611.07004, for judging patches; Esser et al., arXiv:2012.09841, for the
use beside a reconstruction loss.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from flashmotion_jax.config import PatchDiscriminatorConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.layers import Policy


class PatchDiscriminator(nnx.Module):
    """Convolutions over frames stacked in channels; each logit sees 26 x 26 pixels.

    Attributes:
      config: Sizes.
    """

    def __init__(self, config: PatchDiscriminatorConfig, *, policy: Policy, rngs: nnx.Rngs):
        self.config = config
        widths = [3 * config.num_frames, config.dim, 2 * config.dim]
        self.halving = nnx.List(
            [
                layers.conv2d(before, after, 4, strides=2, policy=policy, rngs=rngs)
                for before, after in pairwise(widths)
            ]
        )
        self.conv = layers.conv2d(widths[-1], 4 * config.dim, 3, policy=policy, rngs=rngs)
        self.head = layers.conv2d(4 * config.dim, 1, 3, policy=policy, rngs=rngs)

    def __call__(self, video: jax.Array) -> jax.Array:
        """Computes logits of patches: high for real videos.

        Args:
          video: [B, F, H, W, 3] in [-1, 1]; F is at least `config.num_frames`.

        Returns:
          float32 [B, F - config.num_frames + 1, H / 4, W / 4, 1].
        """
        span = video.shape[1] - self.config.num_frames + 1
        stacked = [video[:, i : i + span] for i in range(self.config.num_frames)]
        return layers.per_frame(self._of_frames, jnp.concatenate(stacked, axis=-1))

    def _of_frames(self, x_NHWC: jax.Array) -> jax.Array:
        for conv in (*self.halving, self.conv):
            x_NHWC = jax.nn.leaky_relu(conv(x_NHWC), 0.2)
        return self.head(x_NHWC).astype(jnp.float32)
