"""Flash attention on TPUs: JAX's splash kernel, for any number of tokens.

Source: `jax.experimental.pallas.ops.tpu.splash_attention`.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

#: Width of the vector registers of a TPU; heads and blocks must be multiples of it.
LANES = 128

#: Queries and keys in fast memory at a time, and keys per matmul.
BLOCK_QUERIES, BLOCK_KEYS, BLOCK_PRODUCTS = 512, 1024, 512


def fits_splash(q_BNAE: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether the kernel supports the head width and there are enough queries to fill a block."""
    return q_BNAE.shape[-1] % LANES == 0 and q_BNAE.shape[1] >= BLOCK_QUERIES


def splash_attention(
    q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array, interpret: bool = False
) -> jax.Array:
    """softmax(q k^T / sqrt(E)) v; scores and sums are in float32.

    Args:
      q_BNAE: Queries.
      k_BSAE: Keys.
      v_BSAE: Values.
      interpret: Run the kernel in Pallas' interpreter, on any backend, for tests.

    Returns:
      `[B, N, A, E]` in the dtype of the queries.
    """
    num_queries, num_keys = q_BNAE.shape[1], k_BSAE.shape[1]
    block_keys = min(BLOCK_KEYS, _round_up(num_keys, LANES))
    q_BANE = _heads_first(q_BNAE / math.sqrt(q_BNAE.shape[-1]), BLOCK_QUERIES)
    k_BASE, v_BASE = (_heads_first(x.astype(q_BNAE.dtype), block_keys) for x in (k_BSAE, v_BSAE))
    shape = (q_BANE.shape[2], k_BASE.shape[2])
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask(shape)] * q_BANE.shape[1]),
        block_sizes=_block_sizes(block_keys),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    # Padded queries are in the segment of the real ones: a row without keys would divide by zero.
    segments = splash.SegmentIds(
        jnp.zeros(shape[0], jnp.int32), (jnp.arange(shape[1]) >= num_keys).astype(jnp.int32)
    )
    attend = functools.partial(kernel, segment_ids=segments)
    out_BANE: jax.Array = jax.vmap(attend)(q_BANE, k_BASE, v_BASE)  # pyrefly: ignore
    return out_BANE.swapaxes(1, 2)[:, :num_queries].astype(q_BNAE.dtype)


def _heads_first(x_BNAE: jax.Array, block: int) -> jax.Array:
    """Transposes to `[B, A, N', E]` and pads N' to a multiple of the block."""
    missing = -x_BNAE.shape[1] % block
    return jnp.pad(x_BNAE, ((0, 0), (0, missing), (0, 0), (0, 0))).swapaxes(1, 2)


def _block_sizes(block_keys: int) -> splash.BlockSizes:
    products = math.gcd(BLOCK_PRODUCTS, block_keys)
    return splash.BlockSizes(
        block_q=BLOCK_QUERIES,
        block_kv=block_keys,
        block_kv_compute=products,
        block_q_dkv=BLOCK_QUERIES,
        block_kv_dkv=block_keys,
        block_kv_dkv_compute=products,
        block_q_dq=BLOCK_QUERIES,
        block_kv_dq=block_keys,
    )


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
