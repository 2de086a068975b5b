"""The light adapter: residual blocks on the trajectory's latents.

Source: FlashMotion section 3.2 and supplement.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from flashmotion_jax.config.adapters import ResNetAdapterConfig
from flashmotion_jax.config.models import DiTConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.dit import ResidualStream
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.runtime.sharding import gather, split_tokens


class ResNetBlock(nnx.Module):
    """Two convolutions of each latent frame, and a projection to the width of the DiT."""

    def __init__(self, width: int, dit_dim: int, *, policy: Policy, rngs: nnx.Rngs):
        self.norm1 = layers.rms_norm(width, eps=1e-6, rngs=rngs)
        self.conv1 = layers.conv2d(width, width, 3, policy=policy, rngs=rngs)
        self.norm2 = layers.rms_norm(width, eps=1e-6, rngs=rngs)
        self.conv2 = layers.conv2d(width, width, 3, policy=policy, rngs=rngs)
        # Zero, so that training starts from the generator without an adapter.
        self.projection = layers.linear(
            width, dit_dim, (None, "embed"), policy=policy, rngs=rngs, zero=True
        )

    def __call__(self, x_BThwC: jax.Array) -> jax.Array:
        """Maps float32 features `[B, T, h / 2, w / 2, width]` to the same shape."""
        hidden = layers.per_frame(self.conv1, jax.nn.silu(self.norm1(x_BThwC)))
        return x_BThwC + layers.per_frame(self.conv2, jax.nn.silu(self.norm2(hidden)))


class ResNetAdapter(nnx.Module):
    """The light adapter: depends on the trajectory only, so that one pass serves all steps.

    Attributes:
      config: Configuration.
      blocks: One block per DiT block, stacked.
    """

    def __init__(
        self,
        config: ResNetAdapterConfig,
        dit_config: DiTConfig,
        *,
        policy: Policy = FLOAT32,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.patch_size = dit_config.patch_size
        patch_height, patch_width = dit_config.patch_size
        self.stem = layers.linear(
            patch_height * patch_width * dit_config.in_channels,
            config.width,
            (None, None),
            policy=policy,
            rngs=rngs,
        )
        self.blocks = layers.stack(
            lambda block_rngs: ResNetBlock(
                config.width, dit_config.dim, policy=policy, rngs=block_rngs
            ),
            dit_config.num_layers,
            rngs,
        )
        self.feature_dtype = policy.compute
        self.remat = policy.remat

    @jax.named_scope("adapter")
    def prepare(self, trajectory: jax.Array, text: jax.Array) -> jax.Array:
        """Features of every block, `[L, B, T, P, width]`; 210 MB for 121 frames in 720p."""
        del text  # part of the interface: the ControlNet attends to it
        width = trajectory.shape[3] // self.patch_size[1]
        x = self.stem(layers.patchify(trajectory, self.patch_size)).astype(jnp.float32)

        def one_block(x: jax.Array, block: ResNetBlock) -> tuple[jax.Array, jax.Array]:
            x = gather(block)(x)
            # The convolutions need whole frames; only the result is split over "context".
            features = split_tokens(rearrange(x, "b t h w c -> b t (h w) c"))
            return x, features.astype(self.feature_dtype)

        # The projections run in `__call__`: their outputs are 24 times as wide as the features.
        _, features_LBTPC = jax.lax.scan(
            layers.remat(one_block, self.remat),
            rearrange(x, "b t (h w) c -> b t h w c", w=width),
            self.blocks,
        )
        return features_LBTPC

    def __call__(
        self, prepared: jax.Array, latents: jax.Array, timesteps: jax.Array, scale: jax.Array
    ) -> ResidualStream:
        """Projects the features inside the DiT's scan; latents and timesteps are not used."""
        del latents, timesteps

        def step(
            carry: tuple[()], layer: tuple[nnx.Linear, jax.Array]
        ) -> tuple[tuple[()], jax.Array]:
            projection, features_BTPC = layer
            # The scale is applied in float32, next to the float32 residual stream.
            return carry, scale * gather(projection)(features_BTPC).astype(jnp.float32)

        return ResidualStream((), (self.blocks.projection, prepared), step)
