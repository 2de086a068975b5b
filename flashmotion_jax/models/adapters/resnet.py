"""The light adapter: residual blocks on the trajectory's latents.

Source: FlashMotion section 3.2 and supplement.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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

    def __init__(
        self, config: ResNetAdapterConfig, dit_dim: int, *, policy: Policy, rngs: nnx.Rngs
    ):
        width = config.width

        def norm() -> nnx.RMSNorm | nnx.GroupNorm:
            if config.norm == "rms":
                return layers.rms_norm(width, eps=1e-6, rngs=rngs)
            return layers.group_norm(width, config.num_groups, eps=1e-6, rngs=rngs)

        self.norm_per_frame = config.norm != "group_video"
        self.norm1 = norm()
        self.conv1 = layers.conv2d(width, width, 3, policy=policy, rngs=rngs)
        self.norm2 = norm()
        self.conv2 = layers.conv2d(width, width, 3, policy=policy, rngs=rngs)
        # Zero, so that training starts from the generator without an adapter.
        self.projection = layers.linear(
            width, dit_dim, (None, "embed"), policy=policy, rngs=rngs, zero=True
        )

    def __call__(self, x_BThwC: jax.Array) -> jax.Array:
        """Maps float32 features `[B, T, h / 2, w / 2, width]` to the same shape."""
        hidden = layers.per_frame(self.conv1, jax.nn.silu(self._normalize(self.norm1, x_BThwC)))
        normalized = self._normalize(self.norm2, hidden)
        return x_BThwC + layers.per_frame(self.conv2, jax.nn.silu(normalized))

    def _normalize(self, norm: Callable[[jax.Array], jax.Array], x_BThwC: jax.Array) -> jax.Array:
        return layers.per_frame(norm, x_BThwC) if self.norm_per_frame else norm(x_BThwC)


def _stem(
    config: ResNetAdapterConfig, dit_config: DiTConfig, *, policy: Policy, rngs: nnx.Rngs
) -> nnx.Linear | nnx.Conv:
    channels = dit_config.in_channels
    folded = math.prod(dit_config.patch_size) * channels
    if config.stem_strided:
        border = config.stem_kernel // 2
        return layers.conv2d(
            channels,
            config.width,
            config.stem_kernel,
            policy=policy,
            rngs=rngs,
            strides=dit_config.patch_size,
            padding=((border, border), (border, border)),
        )
    if config.stem_kernel == 1:
        return layers.linear(folded, config.width, (None, None), policy=policy, rngs=rngs)
    return layers.conv2d(folded, config.width, config.stem_kernel, policy=policy, rngs=rngs)


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
        self.stem = _stem(config, dit_config, policy=policy, rngs=rngs)
        self.blocks = layers.stack(
            lambda block_rngs: ResNetBlock(config, dit_config.dim, policy=policy, rngs=block_rngs),
            dit_config.num_layers,
            rngs,
        )
        self.feature_dtype = policy.compute
        self.remat = policy.remat

    @jax.named_scope("adapter")
    def prepare(self, trajectory: jax.Array, text: jax.Array) -> jax.Array:
        """Features of every block, `[L, B, T, P, width]`; 210 MB for 121 frames in 720p."""
        del text  # part of the interface: the ControlNet attends to it

        def one_block(x: jax.Array, block: ResNetBlock) -> tuple[jax.Array, jax.Array]:
            x = gather(block)(x)
            # The convolutions need whole frames; only the result is split over "context".
            features = split_tokens(rearrange(x, "b t h w c -> b t (h w) c"))
            return x, features.astype(self.feature_dtype)

        # The projections run in `__call__`: their outputs are 24 times as wide as the features.
        _, features_LBTPC = jax.lax.scan(
            layers.remat(one_block, self.remat),
            self._embed(trajectory).astype(jnp.float32),
            self.blocks,
        )
        return features_LBTPC

    def _embed(self, trajectory: jax.Array) -> jax.Array:
        """Applies the stem: latents `[B, T, h, w, C]` to `[B, T, h / 2, w / 2, width]`."""
        if self.config.stem_strided:
            return layers.per_frame(self.stem, trajectory)
        width = trajectory.shape[3] // self.patch_size[1]
        patches = layers.patchify(trajectory, self.patch_size)
        if isinstance(self.stem, nnx.Linear):
            return rearrange(self.stem(patches), "b t (h w) c -> b t h w c", w=width)
        return layers.per_frame(self.stem, rearrange(patches, "b t (h w) c -> b t h w c", w=width))

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
