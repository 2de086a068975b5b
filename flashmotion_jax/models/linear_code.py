"""A linear autoencoder beside the convolutions of a VAE, or of a tiny one.

The normalization in front of a VAE's last convolutions leaves it to directions to say how large
something is: small VAEs that are trained for hours stay worse than the linear code of their size
(docs/decisions.md). With that code added, the convolutions only learn what it lacks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from flashmotion_jax.config import TinyVAEConfig, VAEConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.models.space_to_depth import join_cells, split_cells


class LinearCode(nnx.Module):
    """A matrix from the pixels of a latent to its channels, and one back.

    The first frame, which is a latent frame of its own, has matrices of its own.

    Attributes:
      cells: Frames, rows and columns of a latent, on the first frame and later.
    """

    def __init__(self, config: VAEConfig | TinyVAEConfig, *, policy: Policy, rngs: nnx.Rngs):
        side, channels = config.spatial_factor, config.latent_channels
        self.cells = ((1, side, side), (config.temporal_factor, side, side))
        sizes = [3 * frames * side**2 for frames, *_ in self.cells]
        axes = ("channels_in", "channels_out")
        self.encoders = nnx.List(
            [layers.linear(size, channels, axes, policy=FLOAT32, rngs=rngs) for size in sizes]
        )
        self.decoders = nnx.List(
            [
                layers.linear(channels, size, axes, policy=policy, rngs=rngs, zero=True)
                for size in sizes
            ]
        )

    def encode(self, video: jax.Array, is_first: bool) -> jax.Array:
        """Encodes the first frame of a video, or a chunk of later ones.

        Args:
          video: [B, 1 or n * temporal factor, H, W, 3].
          is_first: Whether it is the first frame.

        Returns:
          float32 [B, 1 or n, h, w, C].
        """
        cells = split_cells(video, self.cells[not is_first])
        folded = rearrange(cells, "b t h w c f q r -> b t h w (c f q r)")
        return self.encoders[int(not is_first)](folded).astype(jnp.float32)

    def decode(self, z: jax.Array, is_first: bool) -> jax.Array:
        """Decodes latents [B, T, h, w, C] to the frames that `encode` takes, float32."""
        frames, rows, columns = self.cells[not is_first]
        folded = self.decoders[int(not is_first)](z).astype(jnp.float32)
        sizes = {"f": frames, "q": rows, "r": columns}
        return join_cells(rearrange(folded, "b t h w (c f q r) -> b t h w c f q r", **sizes))
