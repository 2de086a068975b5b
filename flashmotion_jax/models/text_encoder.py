"""The UMT5 encoder: token ids of a prompt in, embeddings for the DiT's cross-attention out.

It runs once per prompt, before denoising. Blocks are stacked and scanned, so that the attention
scores `[B, A, S, S]` of only one layer exist at a time.

Source: Wan2.2 `wan/modules/t5.py`, which has the same module names; T5, arXiv:1910.10683; UMT5,
arXiv:2304.09151, for position biases in every layer.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from flashmotion_jax.config import TextEncoderConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.eight_bits import table_rows
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import gather


def relative_buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
    """The row of the position bias table for every pair of query and key.

    One half of the rows is for keys after the query, the other for the rest. In each half, half of
    the rows are for one distance each. The others cover logarithmically growing ranges up to
    `max_distance`, and the last one also everything beyond.

    Args:
      length: Number of tokens S.
      num_buckets: Rows of the table.
      max_distance: Distance in tokens.

    Returns:
      int32 `[S, S]`, query by key.

    Source: T5, section 2.1.
    """
    positions = np.arange(length)
    offset_SS = positions[None, :] - positions[:, None]
    distance_SS = np.abs(offset_SS)
    one_side = num_buckets // 2
    exact = one_side // 2
    # NumPy's log2 is exact at powers of two, where buckets begin. A rounding error of a device's
    # logarithm there would select the bucket next to it.
    octaves_SS = np.log2(np.maximum(distance_SS, exact) / exact) / np.log2(max_distance / exact)
    far_SS = exact + (octaves_SS * (one_side - exact)).astype(np.int32)
    bucket_SS = np.where(distance_SS < exact, distance_SS, np.minimum(far_SS, one_side - 1))
    return np.where(offset_SS > 0, bucket_SS + one_side, bucket_SS).astype(np.int32)


class Attention(nnx.Module):
    """Self-attention without biases and without the usual factor 1 / sqrt(E)."""

    def __init__(self, config: TextEncoderConfig, *, policy: Policy, rngs: nnx.Rngs):
        inner_dim = config.num_heads * config.head_dim

        def project(in_dim: int, out_dim: int, axes: tuple[str, str]) -> nnx.Linear:
            return layers.linear(in_dim, out_dim, axes, policy=policy, rngs=rngs, use_bias=False)

        self.q = project(config.dim, inner_dim, ("embed", "heads"))
        self.k = project(config.dim, inner_dim, ("embed", "heads"))
        self.v = project(config.dim, inner_dim, ("embed", "heads"))
        self.o = project(inner_dim, config.dim, ("heads", "embed"))
        self.num_heads = config.num_heads

    @jax.named_scope("attention")
    def __call__(self, x_BSD: jax.Array, bias_1ASS: jax.Array, mask_B11S: jax.Array) -> jax.Array:
        """Attends to keys where `mask_B11S` is true, with `bias_1ASS` added to the scores."""
        q_BSAE, k_BSAE, v_BSAE = (
            rearrange(project(x_BSD), "b s (a e) -> b s a e", a=self.num_heads)
            for project in (self.q, self.k, self.v)
        )
        out_BSAE = jax.nn.dot_product_attention(
            q_BSAE, k_BSAE, v_BSAE, bias_1ASS, mask_B11S, scale=1.0, implementation="xla"
        )
        return self.o(rearrange(out_BSAE, "b s a e -> b s (a e)"))


class GatedFeedForward(nnx.Module):
    """A linear layer gated by the GELU of another, and a projection back to the model width."""

    def __init__(self, config: TextEncoderConfig, *, policy: Policy, rngs: nnx.Rngs):
        def project(in_dim: int, out_dim: int, axes: tuple[str, str]) -> nnx.Linear:
            return layers.linear(in_dim, out_dim, axes, policy=policy, rngs=rngs, use_bias=False)

        self.gate = project(config.dim, config.ffn_dim, ("embed", "mlp"))
        self.fc1 = project(config.dim, config.ffn_dim, ("embed", "mlp"))
        self.fc2 = project(config.ffn_dim, config.dim, ("mlp", "embed"))

    @jax.named_scope("ffn")
    def __call__(self, x_BSD: jax.Array) -> jax.Array:
        """Maps each token on its own."""
        return self.fc2(layers.gelu_tanh(self.gate(x_BSD)) * self.fc1(x_BSD))


class Block(nnx.Module):
    """Pre-norm self-attention and feed-forward, on the float32 residual stream."""

    def __init__(self, config: TextEncoderConfig, *, policy: Policy, rngs: nnx.Rngs):
        self.norm1 = layers.rms_norm(config.dim, eps=config.eps, rngs=rngs)
        self.attn = Attention(config, policy=policy, rngs=rngs)
        # In every block, unlike T5, where all blocks use the table of the first.
        self.pos_embedding = layers.embedding(
            config.num_buckets, config.num_heads, (None, "heads"), policy=FLOAT32, rngs=rngs
        )
        self.norm2 = layers.rms_norm(config.dim, eps=config.eps, rngs=rngs)
        self.ffn = GatedFeedForward(config, policy=policy, rngs=rngs)

    @jax.named_scope("block")
    def __call__(self, x_BSD: jax.Array, buckets_SS: np.ndarray, mask_B11S: jax.Array) -> jax.Array:
        """Runs the block.

        Args:
          x_BSD: float32 tokens.
          buckets_SS: Result of `relative_buckets`.
          mask_B11S: bool, true for tokens of the prompt and false for padding.

        Returns:
          float32 `[B, S, D]`.
        """
        bias_1ASS = rearrange(
            table_rows(self.pos_embedding, jnp.asarray(buckets_SS)), "q k a -> 1 a q k"
        )
        x_BSD = x_BSD + self.attn(self.norm1(x_BSD), bias_1ASS, mask_B11S)
        return x_BSD + self.ffn(self.norm2(x_BSD))


class TextEncoder(nnx.Module):
    """Token embedding, stacked blocks and final norm.

    Attributes:
      config: Configuration.
      blocks: All blocks as one module, whose parameters have a leading layer dimension.
    """

    def __init__(self, config: TextEncoderConfig, *, policy: Policy = FLOAT32, rngs: nnx.Rngs):
        self.config = config
        self.token_embedding = layers.embedding(
            config.vocab_size, config.dim, ("vocab", "embed"), policy=policy, rngs=rngs
        )
        self.blocks = layers.stack(
            lambda block_rngs: Block(config, policy=policy, rngs=block_rngs),
            config.num_layers,
            rngs,
        )
        self.norm = layers.rms_norm(config.dim, eps=config.eps, rngs=rngs)

    def embed_tokens(self, ids_BS: jax.Array) -> jax.Array:
        """Token ids to float32 `[B, S, D]`, NaN for ids outside the vocabulary."""
        return table_rows(self.token_embedding, ids_BS)

    @jax.named_scope("text_encoder")
    def __call__(
        self, ids_BS: jax.Array | np.ndarray, mask_BS: jax.Array | np.ndarray
    ) -> jax.Array:
        """Embeds prompts.

        Args:
          ids_BS: Integer token ids from `Tokenizer`.
          mask_BS: Integer or bool, 1 for tokens of the prompt and 0 for padding.

        Returns:
          float32 `[B, S, D]`, zero for padding: the DiT attends to all S rows, as in Wan2.2.

        Raises:
          UserError: The shapes of ids and mask are not the same `[B, S]`.
        """
        if ids_BS.ndim != 2 or ids_BS.shape != mask_BS.shape:
            raise UserError(
                f"ids have shape {ids_BS.shape} and mask {mask_BS.shape}; expected [B, S] for "
                "both, as the tokenizer returns them"
            )
        config = self.config
        is_prompt_BS = jnp.asarray(mask_BS, bool)
        buckets_SS = relative_buckets(ids_BS.shape[1], config.num_buckets, config.max_distance)

        def one_block(x_BSD: jax.Array, block: Block) -> tuple[jax.Array, None]:
            return gather(block)(x_BSD, buckets_SS, is_prompt_BS[:, None, None, :]), None

        x_BSD, _ = jax.lax.scan(one_block, self.embed_tokens(jnp.asarray(ids_BS)), self.blocks)
        return jnp.where(is_prompt_BS[..., None], self.norm(x_BSD), 0)
