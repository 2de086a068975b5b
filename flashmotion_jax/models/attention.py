"""Exact attention that never holds an N x N matrix of scores.

On NVIDIA GPUs bfloat16 goes to cuDNN's flash attention; everywhere else queries are taken in chunks
against all keys.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flashmotion_jax.compilation import backend

#: Scores of one chunk that a device holds at a time, in elements (256 MiB in float32).
MAX_SCORES = 2**26


def attention(q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(E)) v, the softmax in float32.

    Args:
      q_BNAE: queries of N tokens.
      k_BSAE: keys of S tokens, the dtype of the queries.
      v_BSAE: values, likewise.

    Returns:
      `[B, N, A, E]` in the dtype of the queries.
    """
    if backend() == "gpu" and _fits_cudnn(q_BNAE):
        return _cudnn(q_BNAE, k_BSAE, v_BSAE)
    batch, num_queries, heads, width = q_BNAE.shape
    own_batch = jax.typeof(q_BNAE).sharding.shard_shape(q_BNAE.shape)[0]
    chunk = max(1, MAX_SCORES // (own_batch * heads * k_BSAE.shape[1]))
    if num_queries <= chunk:
        return jax.nn.dot_product_attention(q_BNAE, k_BSAE, v_BSAE, implementation="xla")
    num_chunks = -(-num_queries // chunk)
    padded = jnp.pad(q_BNAE, ((0, 0), (0, num_chunks * chunk - num_queries), (0, 0), (0, 0)))
    chunks = padded.reshape(batch, num_chunks, chunk, heads, width).swapaxes(0, 1)

    # Rematerialised, or the backward pass would keep every chunk's scores: the N x N matrix again.
    @jax.checkpoint
    def attend(q_chunk: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(q_chunk, k_BSAE, v_BSAE, implementation="xla")

    out = jax.lax.map(attend, chunks).swapaxes(0, 1)
    return out.reshape(batch, num_chunks * chunk, heads, width)[:, :num_queries]


def _cudnn(q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array) -> jax.Array:
    """The kernel on each device's own videos.

    On its own, the partitioner takes the kernel's result for whole on every device: it gathered all
    videos' attention, and each device computed the next matmul of all (docs/decisions.md).
    """

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")

    if jax.sharding.get_abstract_mesh().empty:
        return attend(q_BNAE, k_BSAE, v_BSAE)
    batch = PartitionSpec(jax.typeof(q_BNAE).sharding.spec[0])
    return jax.shard_map(attend, in_specs=(batch,) * 3, out_specs=batch, check_vma=False)(
        q_BNAE, k_BSAE, v_BSAE
    )


def _fits_cudnn(q_BNAE: jax.Array) -> bool:
    """CuDNN's flash attention: 16-bit, heads of at most 128 (the VAE's single head is wider).

    A single query, as a classifier's, has no N x N matrix that a kernel would save.
    """
    num_queries, width = q_BNAE.shape[1], q_BNAE.shape[-1]
    is_16_bit = q_BNAE.dtype in (jnp.bfloat16, jnp.float16)
    return is_16_bit and num_queries > 1 and width <= 128 and width % 8 == 0
