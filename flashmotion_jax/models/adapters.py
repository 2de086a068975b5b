"""Trajectory adapters: from the trajectory's latents to one residual per DiT block.

An adapter is any module with the two methods of `Adapter`; the DiT knows no kinds. `prepare` does
once per video what does not depend on the noisy latents, the call itself runs in every step and
returns a `ResidualStream` that the DiT's scan consumes block by block.

Source: FlashMotion section 3.2 and supplement; MagicMotion `trajectory_controlnet.py` for the
ControlNet's input.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from flashmotion_jax.config import ControlNetConfig, DiTConfig, ResNetAdapterConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.dit import DiT, ResidualStream, TextContext, Trunk
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import gather, split_tokens


class Adapter(Protocol):
    """What the pipeline and the trainers ask of an adapter."""

    def prepare(self, trajectory: jax.Array, text: jax.Array) -> Any:
        """What a video needs of its condition, computed once.

        Args:
          trajectory: `[B, T, h, w, C]` latents of the trajectory map.
          text: `[B, S, text_dim]` embeddings of the prompt.

        Returns:
          A pytree of arrays that `__call__` understands.
        """
        ...

    def __call__(
        self, prepared: Any, latents: jax.Array, timesteps: jax.Array, scale: jax.Array
    ) -> ResidualStream:
        """The residuals for these latents.

        Args:
          prepared: the result of `prepare`.
          latents: noisy latents `[B, T, h, w, C]`.
          timesteps: `[B, T]`, 0..1000.
          scale: scalar weight of the residuals.

        Returns:
          The stream to hand to the DiT.
        """
        ...


class ResNetBlock(nnx.Module):
    """Two convolutions on each latent frame, and the projection of their sum to the DiT's width."""

    def __init__(self, width: int, dit_dim: int, *, policy: Policy, rngs: nnx.Rngs):
        self.norm1 = layers.rms_norm(width, eps=1e-6, rngs=rngs)
        self.conv1 = layers.conv2d(width, width, 3, policy=policy, rngs=rngs)
        self.norm2 = layers.rms_norm(width, eps=1e-6, rngs=rngs)
        self.conv2 = layers.conv2d(width, width, 3, policy=policy, rngs=rngs)
        self.projection = layers.linear(
            width, dit_dim, (None, "embed"), policy=policy, rngs=rngs, zero=True
        )

    def __call__(self, x_BThwC: jax.Array) -> jax.Array:
        """Float32 features to float32 features, `[B, T, h / 2, w / 2, width]`."""
        hidden = layers.per_frame(self.conv1, jax.nn.silu(self.norm1(x_BThwC)))
        return x_BThwC + layers.per_frame(self.conv2, jax.nn.silu(self.norm2(hidden)))


class ResNetAdapter(nnx.Module):
    """The light adapter: sees the trajectory alone, so that one pass serves every step.

    Attributes:
      config: its own sizes.
      blocks: one block for each of the DiT's, stacked.
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

    def prepare(self, trajectory: jax.Array, text: jax.Array) -> jax.Array:
        """Features of every block, `[L, B, T, P, width]`; 210 MB of bfloat16 at 121 frames 720p."""
        del text
        width = trajectory.shape[3] // self.patch_size[1]
        x = self.stem(layers.patchify(trajectory, self.patch_size)).astype(jnp.float32)

        def one_block(x: jax.Array, block: ResNetBlock) -> tuple[jax.Array, jax.Array]:
            x = gather(block)(x)
            features = split_tokens(rearrange(x, "b t h w c -> b t (h w) c"))
            return x, features.astype(self.feature_dtype)

        _, features_LBTPC = jax.lax.scan(
            layers.remat(one_block, self.remat),
            rearrange(x, "b t (h w) c -> b t h w c", w=width),
            self.blocks,
        )
        return features_LBTPC

    def __call__(
        self, prepared: jax.Array, latents: jax.Array, timesteps: jax.Array, scale: jax.Array
    ) -> ResidualStream:
        """Projects the features inside the DiT's scan; latents and timesteps are not looked at."""
        del latents, timesteps

        def step(
            carry: tuple[()], layer: tuple[nnx.Linear, jax.Array]
        ) -> tuple[tuple[()], jax.Array]:
            projection, features_BTPC = layer
            return carry, scale * gather(projection)(features_BTPC).astype(jnp.float32)

        return ResidualStream((), (self.blocks.projection, prepared), step)


class ControlNet(Trunk):
    """The heavy adapter: the DiT's own blocks on latents and trajectory, a zero projection each.

    Attributes:
      adapter_config: what it takes as input.
    """

    def __init__(
        self,
        config: ControlNetConfig,
        dit_config: DiTConfig,
        *,
        policy: Policy = FLOAT32,
        rngs: nnx.Rngs,
    ):
        trunk_config = controlnet_trunk(config, dit_config)
        super().__init__(trunk_config, policy=policy, rngs=rngs)
        self.adapter_config = config
        dim = dit_config.dim
        self.projections = layers.stack(
            lambda rngs: layers.linear(
                dim, dim, ("heads", "embed"), policy=policy, rngs=rngs, zero=True
            ),
            dit_config.num_layers,
            rngs,
        )

    def prepare(self, trajectory: jax.Array, text: jax.Array) -> tuple[jax.Array, TextContext]:
        """The trajectory and its own keys and values of the text."""
        return trajectory, self.text_context(text)

    def __call__(
        self,
        prepared: tuple[jax.Array, TextContext],
        latents: jax.Array,
        timesteps: jax.Array,
        scale: jax.Array,
    ) -> ResidualStream:
        """Runs its blocks in step with the DiT's; the carry is its own residual stream."""
        trajectory, context = prepared
        if self.adapter_config.input == "latents+trajectory":
            trajectory = jnp.concatenate([latents, trajectory], axis=-1)
        _, modulation_BT6D = self.embed_timesteps(timesteps)
        rope_TPE = self.rope(latents)

        def step(x_BTPD: jax.Array, layer: Any) -> tuple[jax.Array, jax.Array]:
            block, projection, keys_values = layer
            x_BTPD = gather(block)(x_BTPD, modulation_BT6D, keys_values, rope_TPE)
            return x_BTPD, scale * gather(projection)(x_BTPD).astype(jnp.float32)

        return ResidualStream(
            self.embed_patches(trajectory), (self.blocks, self.projections, tuple(context)), step
        )


def controlnet_trunk(config: ControlNetConfig, dit_config: DiTConfig) -> DiTConfig:
    """The DiT's sizes with the input width of the ControlNet.

    Raises:
      UserError: an unknown `config.input`.
    """
    widths = {
        "latents+trajectory": 2 * dit_config.in_channels,
        "trajectory": dit_config.in_channels,
    }
    if config.input not in widths:
        raise UserError(f"input={config.input!r} is unknown; use one of {sorted(widths)}")
    return dataclasses.replace(dit_config, in_channels=widths[config.input])


def copy_from_dit(controlnet: ControlNet, dit: DiT) -> ControlNet:
    """A ControlNet that starts as the DiT: all weights copied, new input channels at zero.

    Args:
      controlnet: freshly made; its zero projections are kept.
      dit: the generator it is for.

    Returns:
      A new ControlNet; neither argument changes.
    """
    new = nnx.clone(controlnet)
    copied = {path: param for path, param in nnx.to_flat_state(nnx.state(dit)) if path[0] != "head"}
    q, r = dit.config.patch_size
    extra = new.config.in_channels - dit.config.in_channels
    kernel = copied["patch_embedding", "kernel"]
    channels = rearrange(kernel.get_value(), "(p c) d -> p c d", p=q * r)
    padded = jnp.pad(channels, ((0, 0), (0, extra), (0, 0)))
    copied["patch_embedding", "kernel"] = kernel.replace(rearrange(padded, "p c d -> (p c) d"))
    nnx.update(new, nnx.from_flat_state(copied))
    return new
