"""The heavy adapter: a trainable copy of the DiT's blocks.

Source: FlashMotion section 3.2 and supplement; MagicMotion `trajectory_controlnet.py` for its
input.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from flashmotion_jax.config.adapters import ControlNetConfig, ControlNetLoRAConfig
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
        channels = self.input_channels(config, dit_config)
        trunk_config = dataclasses.replace(dit_config, in_channels=channels)
        super().__init__(trunk_config, policy=policy, rngs=rngs)
        self.adapter_config = config
        self.projections = _projections(dit_config, policy=policy, rngs=rngs)

    @classmethod
    def input_channels(cls, config: ControlNetConfig, dit_config: DiTConfig) -> int:
        """Channels of what its patch embedding is given.

        Raises:
          UserError: `config.input` is unknown.
        """
        inputs = ("latents+trajectory", "trajectory+latents", "trajectory")
        if config.input not in inputs:
            raise UserError(f"input={config.input!r} is unknown; use one of {', '.join(inputs)}")
        return len(config.input.split("+")) * dit_config.in_channels

    def channels(self, trajectory: jax.Array, latents: jax.Array) -> jax.Array:
        """Returns what its patch embedding is given, `[B, T, h, w, C]`.

        Args:
          trajectory: As in `prepare`.
          latents: Noisy latents.
        """
        inputs = {"latents": latents, "trajectory": trajectory}
        names = self.adapter_config.input.split("+")
        return jnp.concatenate([inputs[name] for name in names], axis=-1)

    def input_kernel(self, kernel: jax.Array, dit_config: DiTConfig) -> jax.Array:
        """Returns the kernel of its patch embedding as training starts from it.

        Args:
          kernel: Of the DiT's patch embedding.
          dit_config: Of the DiT.
        """
        return add_input_channels(kernel, self.adapter_config, dit_config)

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
        channels = self.channels(trajectory, latents)
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
        """Returns a copy with the weights of a DiT; those of other input channels are zero.

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
        kernel = copied["patch_embedding", "kernel"]
        own = self.input_kernel(kernel.get_value(), dit.config)
        copied["patch_embedding", "kernel"] = kernel.replace(own)
        nnx.update(new, nnx.from_flat_state(copied))
        return new


class BlockLoRA(nnx.Module):
    """A LoRA of every linear layer of a block, under the layers' names."""

    def __init__(self, rank: int, dit_config: DiTConfig, *, policy: Policy, rngs: nnx.Rngs):
        dim, ffn_dim = dit_config.dim, dit_config.ffn_dim

        def low_rank(in_dim: int, out_dim: int, *axes: str) -> layers.LowRank:
            names = (axes[0], axes[1])
            return layers.LowRank(in_dim, out_dim, rank, names, policy=policy, rngs=rngs)

        def attention() -> nnx.Dict[layers.LowRank]:
            inwards = {name: low_rank(dim, dim, "embed", "heads") for name in "qkv"}
            return nnx.Dict(**inwards, o=low_rank(dim, dim, "heads", "embed"))

        self.self_attn, self.cross_attn = attention(), attention()
        self.ffn = nnx.Dict(
            up=low_rank(dim, ffn_dim, "embed", "mlp"), down=low_rank(ffn_dim, dim, "mlp", "embed")
        )


class ControlNetLoRA(nnx.Module):
    """A ControlNet whose blocks are those of a frozen model and a LoRA of them.

    The input embedding and the projections are its own.

    Attributes:
      config: Configuration.
      blocks: The LoRAs, stacked.
    """

    def __init__(
        self,
        config: ControlNetLoRAConfig,
        dit_config: DiTConfig,
        *,
        policy: Policy = FLOAT32,
        rngs: nnx.Rngs,
    ):
        self.config, self._dit_config, self._policy = config, dit_config, policy
        in_channels = ControlNet.input_channels(config, dit_config)
        self.patch_embedding = layers.linear(
            math.prod(dit_config.patch_size) * in_channels,
            dit_config.dim,
            (None, "embed"),
            policy=policy,
            rngs=rngs,
        )
        self.projections = _projections(dit_config, policy=policy, rngs=rngs)
        self.blocks = layers.stack(
            lambda rngs: BlockLoRA(config.rank, dit_config, policy=policy, rngs=rngs),
            dit_config.num_layers,
            rngs,
        )

    def add_input_channels(self, kernel: jax.Array) -> jax.Array:
        """The kernel of the DiT's patch embedding, with weights of zero for the new channels."""
        return add_input_channels(kernel, self.config, self._dit_config)

    def on(self, base: Trunk) -> ControlNet:
        """Returns the ControlNet with the other weights of a frozen model.

        Args:
          base: The DiT, or a ControlNet, that this is a LoRA of. It does not change.

        Returns:
          A module that shares the arrays of both.
        """
        net = nnx.eval_shape(
            lambda: ControlNet(self.config, self._dit_config, policy=self._policy, rngs=nnx.Rngs(0))
        )
        net.patch_embedding, net.projections = self.patch_embedding, self.projections
        for name in ("text_embedding", "time_embedding", "time_projection"):
            setattr(net, name, getattr(base, name))
        net.blocks = nnx.clone(base.blocks)
        for part in ("self_attn", "cross_attn", "ffn"):
            for name, low_rank in getattr(self.blocks, part).items():
                module = getattr(net.blocks, part)
                linear = getattr(module, name)
                setattr(module, name, layers.LoRALinear(linear, low_rank, self.config.factor))
        return net


def _projections(dit_config: DiTConfig, *, policy: Policy, rngs: nnx.Rngs) -> nnx.Linear:
    dim = dit_config.dim
    # Zero, so that training starts from the generator without an adapter.
    return layers.stack(
        lambda rngs: layers.linear(
            dim,
            dim,
            ("heads", "embed"),
            policy=policy.without_eight_bits,
            rngs=rngs,
            zero=True,
        ),
        dit_config.num_layers,
        rngs,
    )


def add_input_channels(
    kernel: jax.Array, config: ControlNetConfig, dit_config: DiTConfig
) -> jax.Array:
    """The kernel of a DiT's patch embedding for the input of a ControlNet, new weights zero.

    Args:
      kernel: `[q * r * C, D]`.
      config: Of the ControlNet.
      dit_config: Of the DiT.
    """
    q, r = dit_config.patch_size
    # The kernel's rows are (pixel of the patch, channel): new channels go behind those of the
    # latents, or before them.
    extra = ControlNet.input_channels(config, dit_config) - dit_config.in_channels
    padding = (0, extra) if config.input.startswith("latents") else (extra, 0)
    channels = rearrange(kernel, "(p c) d -> p c d", p=q * r)
    padded = jnp.pad(channels, ((0, 0), padding, (0, 0)))
    return rearrange(padded, "p c d -> (p c) d")
