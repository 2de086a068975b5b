"""The Wan2.2 diffusion transformer: latents, timesteps and text in, velocity out.

`Trunk` is everything but the output head, and the base of adapters that copy the DiT. Blocks are
stacked and scanned. Tokens keep a frame axis, `[B, T, P, D]`, so that one timestep per latent frame
modulates the tokens of the frame by broadcasting.

Source: Wan2.2 `wan/modules/model.py`; FlashMotion section 3.1 for the residuals of an adapter.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from flashmotion_jax.config import DiTConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.attention import attend_to_tokens, attend_to_whole
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.models.rope import apply_rope, rope_table
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import gather, join_tokens, pad_tokens, split_tokens


class TextContext(NamedTuple):
    """Keys and values of every block's cross-attention, computed once per prompt.

    Attributes:
      keys_LBSAE: Normalized keys, in the compute dtype.
      values_LBSAE: Values, likewise.
    """

    keys_LBSAE: jax.Array
    values_LBSAE: jax.Array


@dataclasses.dataclass(frozen=True)
class ResidualStream:
    """A residual per block, computed inside the DiT's scan, so that only one exists at a time.

    Adapters return one. `step` takes the carry and the block's slice of `layers`, and returns the
    next carry and the residual that is added to the block's output.

    Attributes:
      carry: Pytree passed from block to block, for instance the adapter's hidden state.
      layers: Pytree of arrays with a leading dimension L: weights and features per block.
      step: `(carry, layer) -> (carry, residual_BTPD)`.
    """

    carry: Any
    layers: Any
    step: Callable[[Any, Any], tuple[Any, jax.Array]]


class Attention(nnx.Module):
    """Projections and norms shared by self- and cross-attention."""

    def __init__(self, config: DiTConfig, *, policy: Policy, rngs: nnx.Rngs):
        def project() -> nnx.Linear:
            return layers.linear(
                config.dim, config.dim, ("embed", "heads"), policy=policy, rngs=rngs
            )

        self.q, self.k, self.v = project(), project(), project()
        self.o = layers.linear(config.dim, config.dim, ("heads", "embed"), policy=policy, rngs=rngs)
        # Over the full width, not per head, as in Wan2.2.
        self.norm_q = layers.rms_norm(config.dim, eps=config.eps, rngs=rngs)
        self.norm_k = layers.rms_norm(config.dim, eps=config.eps, rngs=rngs)
        self.num_heads = config.num_heads
        self.compute_dtype = policy.compute

    def heads(self, x: jax.Array) -> jax.Array:
        """Splits the width into heads: `[..., D] -> [..., A, E]`."""
        return rearrange(x, "... (a e) -> ... a e", a=self.num_heads)

    def join(self, out: jax.Array) -> jax.Array:
        """Joins the heads and projects: `[..., A, E] -> [..., D]`."""
        return self.o(rearrange(out, "... a e -> ... (a e)"))


class SelfAttention(Attention):
    """Self-attention over all tokens, with rotary positions."""

    @jax.named_scope("self_attention")
    def __call__(self, x_BTPD: jax.Array, rope_TPE: jax.Array) -> jax.Array:
        """Attends to all tokens that have a rotation in `rope_TPE`; the others are padding."""
        rope = pad_tokens(rope_TPE[None], x_BTPD.shape[2])[0]
        q_BTPAE = apply_rope(self.heads(self.norm_q(self.q(x_BTPD))), rope)
        k_BTPAE = apply_rope(self.heads(self.norm_k(self.k(x_BTPD))), rope)
        v_BTPAE = self.heads(self.v(x_BTPD))
        out_BTPAE = attend_to_tokens(
            q_BTPAE.astype(self.compute_dtype),
            k_BTPAE.astype(self.compute_dtype),
            v_BTPAE,
            num_tokens=rope_TPE.shape[1],
        )
        return self.join(out_BTPAE)


class CrossAttention(Attention):
    """Cross-attention to the text, whose keys and values are computed beforehand."""

    def keys_values(self, text_BSD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values `[B, S, A, E]` of embedded text `[B, S, D]`."""
        keys = self.heads(self.norm_k(self.k(text_BSD))).astype(self.compute_dtype)
        return keys, self.heads(self.v(text_BSD))

    @jax.named_scope("cross_attention")
    def __call__(self, x_BTPD: jax.Array, keys_values: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Attends to the text with these keys and values."""
        q_BTPAE = self.heads(self.norm_q(self.q(x_BTPD))).astype(self.compute_dtype)
        return self.join(attend_to_whole(q_BTPAE, *keys_values))


class Block(nnx.Module):
    """Modulated self-attention, cross-attention to the text, modulated feed-forward."""

    def __init__(self, config: DiTConfig, *, policy: Policy, rngs: nnx.Rngs):
        self.norm1 = layers.layer_norm(config.dim, eps=config.eps, affine=False, rngs=rngs)
        self.self_attn = SelfAttention(config, policy=policy, rngs=rngs)
        self.norm3 = layers.layer_norm(config.dim, eps=config.eps, affine=True, rngs=rngs)
        self.cross_attn = CrossAttention(config, policy=policy, rngs=rngs)
        self.norm2 = layers.layer_norm(config.dim, eps=config.eps, affine=False, rngs=rngs)
        self.ffn = layers.FeedForward(
            (config.dim, config.ffn_dim, config.dim), layers.gelu_tanh, policy=policy, rngs=rngs
        )
        self.modulation = layers.learned_rows(6, config.dim, rngs)

    @jax.named_scope("block")
    def __call__(
        self,
        x_BTPD: jax.Array,
        modulation_BT6D: jax.Array,
        text: tuple[jax.Array, jax.Array],
        rope_TPE: jax.Array,
    ) -> jax.Array:
        """Runs the block on the float32 residual stream.

        Args:
          x_BTPD: float32 tokens.
          modulation_BT6D: float32 rows shift1, scale1, gate1, shift2, scale2, gate2 per frame.
          text: Keys and values of this block, `[B, S, A, E]` each.
          rope_TPE: Result of `rope_table`.

        Returns:
          float32 `[B, T, P, D]`.
        """
        # The MLP of the timestep is shared by all blocks; a block adds its own learned rows.
        rows_BT6D = self.modulation[...][None, None] + modulation_BT6D
        rows = jnp.split(rows_BT6D, 6, axis=2)  # [B, T, 1, D] each
        shift1, scale1, gate1, shift2, scale2, gate2 = rows

        # At 1 + scale, zero is the identity. Cross-attention has neither modulation nor gate.
        modulated = self.norm1(x_BTPD) * (1 + scale1) + shift1
        x_BTPD = x_BTPD + gate1 * self.self_attn(modulated, rope_TPE)
        x_BTPD = x_BTPD + self.cross_attn(self.norm3(x_BTPD), text)
        return x_BTPD + gate2 * self.ffn(self.norm2(x_BTPD) * (1 + scale2) + shift2)


class Trunk(nnx.Module):
    """Embeddings of patches, timesteps and text, and the stacked blocks.

    Attributes:
      config: Configuration; `config.in_channels` are the channels that `embed_patches` takes.
      blocks: All blocks as one module, whose parameters have a leading layer dimension.
    """

    def __init__(self, config: DiTConfig, *, policy: Policy = FLOAT32, rngs: nnx.Rngs):
        self.config, dim = config, config.dim
        floats = policy.without_eight_bits
        # The published convolution has stride = kernel size, which is a matmul per patch.
        self.patch_embedding = layers.linear(
            math.prod(config.patch_size) * config.in_channels,
            dim,
            (None, "embed"),
            policy=floats,
            rngs=rngs,
        )
        self.text_embedding = layers.FeedForward(
            (config.text_dim, dim, dim), layers.gelu_tanh, policy=floats, rngs=rngs
        )
        # In float32: a rounding error of the modulation would shift all tokens of a frame alike.
        self.time_embedding = layers.FeedForward(
            (config.freq_dim, dim, dim), jax.nn.silu, policy=FLOAT32, rngs=rngs
        )
        self.time_projection = layers.linear(
            dim, 6 * dim, ("embed", "mlp"), policy=FLOAT32, rngs=rngs
        )
        self.blocks = layers.stack(
            lambda block_rngs: Block(config, policy=policy, rngs=block_rngs),
            config.num_layers,
            rngs,
        )

    @jax.named_scope("embed_patches")
    def embed_patches(self, latents_BThwC: jax.Array) -> jax.Array:
        """Latents to float32 tokens `[B, T, P, D]`, split over "context"."""
        patches = split_tokens(layers.patchify(latents_BThwC, self.config.patch_size))
        return self.patch_embedding(patches).astype(jnp.float32)

    @jax.named_scope("embed_timesteps")
    def embed_timesteps(self, timesteps_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Embeds one timestep per latent frame.

        Args:
          timesteps_BT: Timesteps on the 0..1000 scale.

        Returns:
          float32 embedding `[B, T, D]` for the head and modulation `[B, T, 6, D]` for the blocks.
        """
        sinusoid = layers.timestep_embedding(timesteps_BT, self.config.freq_dim)
        embedding_BTD = self.time_embedding(sinusoid)
        rows = self.time_projection(jax.nn.silu(embedding_BTD))
        return embedding_BTD, rearrange(rows, "b t (n d) -> b t n d", n=6)

    @jax.named_scope("text_context")
    def text_context(self, text_BSD: jax.Array) -> TextContext:
        """Keys and values of the text in every block, once per video.

        Args:
          text_BSD: Output of the text encoder. Its zero padding is attended to, as in Wan2.2.
        """
        embedded = self.text_embedding(text_BSD)

        def one_block(_: None, block: Block) -> tuple[None, tuple[jax.Array, jax.Array]]:
            return None, gather(block.cross_attn).keys_values(embedded)

        _, (keys, values) = jax.lax.scan(one_block, None, self.blocks)
        return TextContext(keys, values)

    def rope(self, latents_BThwC: jax.Array) -> jax.Array:
        """Rotations for the tokens of latents with this shape."""
        return rope_table(self._grid(latents_BThwC), self.config.head_dim)

    def num_tokens(self, latents_BThwC: jax.Array) -> int:
        """Number of tokens per frame of latents with this shape."""
        _, rows, columns = self._grid(latents_BThwC)
        return rows * columns

    def _grid(self, latents_BThwC: jax.Array) -> tuple[int, int, int]:
        _, frames, height, width, _ = latents_BThwC.shape
        patch_height, patch_width = self.config.patch_size
        return frames, height // patch_height, width // patch_width


class Head(nnx.Module):
    """Modulated norm and projection of each token to a patch of velocity, in float32."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        self.norm = layers.layer_norm(config.dim, eps=config.eps, affine=False, rngs=rngs)
        self.head = layers.linear(
            config.dim,
            math.prod(config.patch_size) * config.out_channels,
            ("embed", None),
            policy=FLOAT32,
            rngs=rngs,
        )
        self.modulation = layers.learned_rows(2, config.dim, rngs)

    @jax.named_scope("head")
    def __call__(self, x_BTPD: jax.Array, embedding_BTD: jax.Array) -> jax.Array:
        """Maps tokens and timestep embeddings to patches `[B, T, P, q * r * C]`."""
        rows = self.modulation[...][None, None] + embedding_BTD[:, :, None]
        shift, scale = jnp.split(rows, 2, axis=2)
        return self.head(self.norm(x_BTPD) * (1 + scale) + shift)


class DiT(Trunk):
    """The generator: predicts the velocity eps - x_0 of noisy latents.

    Attributes:
      remat: Rematerialization of blocks and of an adapter's steps, see `layers.Policy`.
    """

    def __init__(self, config: DiTConfig, *, policy: Policy = FLOAT32, rngs: nnx.Rngs):
        super().__init__(config, policy=policy, rngs=rngs)
        self.head = Head(config, rngs=rngs)
        self.remat = policy.remat

    def __call__(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        text: jax.Array | TextContext,
        residuals: ResidualStream | None = None,
    ) -> jax.Array:
        """Predicts the velocity.

        Args:
          latents: `[B, T, h, w, C]`, normalized; h and w are multiples of the patch size.
          timesteps: `[B, T]` on the 0..1000 scale, 0 for a clean frame.
          text: `[B, S, text_dim]` embeddings, or their `text_context`.
          residuals: Residuals of an adapter, added to the output of each block.

        Returns:
          float32 velocity `[B, T, h, w, C]`.

        Raises:
          UserError: The shapes do not match.
        """
        x_BTPD, embedding_BTD, _ = self._run_blocks(latents, timesteps, text, residuals)
        patches = self.head(x_BTPD, embedding_BTD)
        patches = join_tokens(patches, self.num_tokens(latents))
        return layers.unpatchify(patches, self.config.patch_size, width=latents.shape[3])

    def block_outputs(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        text: jax.Array | TextContext,
        block_indices: tuple[int, ...],
    ) -> jax.Array:
        """Outputs of some blocks. All blocks run: a scan over fewer would copy their weights.

        Args:
          latents: See `__call__`.
          timesteps: See `__call__`.
          text: See `__call__`.
          block_indices: Indices of K blocks, from 0, in any order.

        Returns:
          float32 residual stream after each block, `[K, B, T, P, D]`, not split over "context".

        Raises:
          UserError: There are no indices, a block does not exist, or the shapes do not match.
        """
        last = self.config.num_layers - 1
        if not block_indices or not all(0 <= index <= last for index in block_indices):
            raise UserError(
                f"outputs of blocks {tuple(block_indices)}; expected one or more of 0 to {last}, "
                "the blocks of this DiT"
            )
        _, _, outputs = self._run_blocks(latents, timesteps, text, None, block_indices)
        return jnp.stack([join_tokens(output, self.num_tokens(latents)) for output in outputs])

    @jax.named_scope("dit")
    def _run_blocks(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        text: jax.Array | TextContext,
        residuals: ResidualStream | None,
        block_indices: tuple[int, ...] = (),
    ) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
        """The residual stream, the timestep embedding for the head, and the selected outputs."""
        self._check(latents, timesteps)
        context = text if isinstance(text, TextContext) else self.text_context(text)
        stream = residuals or ResidualStream((), (), lambda carry, _: (carry, jnp.float32(0)))
        embedding_BTD, modulation_BT6D = self.embed_timesteps(timesteps)
        rope_TPE = self.rope(latents)

        @functools.partial(layers.remat, policy=self.remat)
        def one_block(carry: Any, layer: Any) -> Any:
            x_BTPD, stream_carry = carry
            block, keys_values, stream_layer = layer
            x_BTPD = gather(block)(x_BTPD, modulation_BT6D, keys_values, rope_TPE)
            with jax.named_scope("adapter"):
                stream_carry, residual_BTPD = stream.step(stream_carry, stream_layer)
            return x_BTPD + residual_BTPD, stream_carry

        def step(carry: Any, inputs: Any) -> tuple[Any, None]:
            (hidden, outputs), (index, layer) = carry, inputs
            hidden = one_block(hidden, layer)
            # Outside of the checkpoint, with a scalar condition: nothing is saved for backward.
            outputs = tuple(
                jax.lax.select(index == wanted, hidden[0], output)
                for wanted, output in zip(block_indices, outputs, strict=True)
            )
            return (hidden, outputs), None

        x_BTPD = self.embed_patches(latents)
        inputs = (self.blocks, tuple(context), stream.layers)
        ((x_BTPD, _), outputs), _ = jax.lax.scan(
            step,
            ((x_BTPD, stream.carry), (jnp.zeros_like(x_BTPD),) * len(block_indices)),
            (jnp.arange(self.config.num_layers), inputs),
        )
        return x_BTPD, embedding_BTD, outputs

    def _check(self, latents: jax.Array, timesteps: jax.Array) -> None:
        if latents.ndim != 5 or latents.shape[-1] != self.config.in_channels:
            raise UserError(
                f"latents have shape {latents.shape}; expected [B, T, h, w, "
                f"{self.config.in_channels}], channels last"
            )
        if timesteps.shape != latents.shape[:2]:
            raise UserError(
                f"timesteps have shape {timesteps.shape}; expected one per latent frame, "
                f"[B, T] = {latents.shape[:2]}; use jnp.full to repeat a scalar"
            )
        for name, size, patch in zip("hw", latents.shape[2:4], self.config.patch_size, strict=True):
            if size % patch:
                raise UserError(f"latents have {name}={size}; expected a multiple of {patch}")
