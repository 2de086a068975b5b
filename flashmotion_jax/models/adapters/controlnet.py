"""The heavy adapter: a trainable copy of the DiT's blocks.

Source: FlashMotion section 3.2 and supplement; MagicMotion `trajectory_controlnet.py` for its
input.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from flashmotion_jax.config.adapters import ControlNetConfig
from flashmotion_jax.config.models import DiTConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.dit import DiT, ResidualStream, TextContext, Trunk
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import gather


class ControlNet(Trunk):
    """The heavy adapter: a copy of the DiT's blocks, with a zero-initialized projection each.

    Attributes:
      adapter_config: Configuration; `config` is that of its trunk.
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
        # Zero, so that training starts from the generator without an adapter.
        self.projections = layers.stack(
            lambda rngs: layers.linear(
                dim, dim, ("heads", "embed"), policy=policy, rngs=rngs, zero=True
            ),
            dit_config.num_layers,
            rngs,
        )

    @jax.named_scope("adapter")
    def prepare(self, trajectory: jax.Array, text: jax.Array) -> tuple[jax.Array, TextContext]:
        """The trajectory, and the text's keys and values in the blocks of the adapter."""
        return trajectory, self.text_context(text)

    @jax.named_scope("adapter")
    def __call__(
        self,
        prepared: tuple[jax.Array, TextContext],
        latents: jax.Array,
        timesteps: jax.Array,
        scale: jax.Array,
    ) -> ResidualStream:
        """Runs its blocks inside the DiT's scan; the carry is its own residual stream."""
        trajectory, context = prepared
        # In every step, unlike the ResNet adapter: its blocks depend on the noise level.
        inputs = {"latents": latents, "trajectory": trajectory}
        names = self.adapter_config.input.split("+")
        channels = jnp.concatenate([inputs[name] for name in names], axis=-1)
        # Its own timestep embedding: it starts as a copy of the DiT's and is trained.
        _, modulation_BT6D = self.embed_timesteps(timesteps)
        rope_TPE = self.rope(latents)

        def step(x_BTPD: jax.Array, layer: Any) -> tuple[jax.Array, jax.Array]:
            block, projection, keys_values = layer
            x_BTPD = gather(block)(x_BTPD, modulation_BT6D, keys_values, rope_TPE)
            return x_BTPD, scale * gather(projection)(x_BTPD).astype(jnp.float32)

        return ResidualStream(
            self.embed_patches(channels), (self.blocks, self.projections, tuple(context)), step
        )

    def copy_from_dit(self, dit: DiT) -> ControlNet:
        """Returns a copy with the weights of a DiT; weights of new input channels are zero.

        Args:
          dit: The generator that the adapter is for.

        Returns:
          A new module with the projections of this one; neither module changes.
        """
        new = nnx.clone(self)
        # An adapter ends in projections; it has no head that predicts velocities.
        copied = {
            path: param for path, param in nnx.to_flat_state(nnx.state(dit)) if path[0] != "head"
        }
        q, r = dit.config.patch_size
        # The kernel's rows are (pixel of the patch, channel): new channels go behind those of the
        # latents, or before them.
        extra = new.config.in_channels - dit.config.in_channels
        is_first = self.adapter_config.input.startswith("latents")
        padding = (0, extra) if is_first else (extra, 0)
        kernel = copied["patch_embedding", "kernel"]
        channels = rearrange(kernel.get_value(), "(p c) d -> p c d", p=q * r)
        padded = jnp.pad(channels, ((0, 0), padding, (0, 0)))
        copied["patch_embedding", "kernel"] = kernel.replace(rearrange(padded, "p c d -> (p c) d"))
        nnx.update(new, nnx.from_flat_state(copied))
        return new


def controlnet_trunk(config: ControlNetConfig, dit_config: DiTConfig) -> DiTConfig:
    """The configuration of the DiT with the input channels of the ControlNet.

    Raises:
      UserError: `config.input` is unknown.
    """
    inputs = ("latents+trajectory", "trajectory+latents", "trajectory")
    if config.input not in inputs:
        raise UserError(f"input={config.input!r} is unknown; use one of {', '.join(inputs)}")
    count = len(config.input.split("+"))
    return dataclasses.replace(dit_config, in_channels=count * dit_config.in_channels)
