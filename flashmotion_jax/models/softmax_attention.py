"""Attention in chunks of queries, whose backward pass recomputes the attention weights.

The forward pass saves its result and the log-sum-exp of each query instead of the weights, which
would be an N x N matrix. On a CPU, recomputing them is also faster than writing and reading them.

Source: Dao et al., "FlashAttention", arXiv:2205.14135, appendix B, equations of the gradients.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from einops import rearrange


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def softmax_attention(
    q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array, chunk: int
) -> jax.Array:
    """softmax(q k^T / sqrt(E)) v, the softmax in float32.

    Args:
      q_BNAE: Queries.
      k_BSAE: Keys, in the dtype of the queries.
      v_BSAE: Values, likewise.
      chunk: Queries per chunk.

    Returns:
      `[B, N, A, E]` in the dtype of the queries.
    """
    return _forward(q_BNAE, k_BSAE, v_BSAE, chunk)[0]


_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(
    q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array, chunk: int
) -> tuple[jax.Array, _Kept]:
    k_BASE, v_BASE = _by_heads(k_BSAE), _by_heads(v_BSAE)

    def attend(q_BAnE: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores_BAnS = _scores(q_BAnE, k_BASE)
        highest_BAn = scores_BAnS.max(axis=-1)  # subtracted so that exp cannot overflow
        weights_BAnS = jnp.exp(scores_BAnS - highest_BAn[..., None])
        sum_BAn = weights_BAnS.sum(axis=-1)
        out_BAnE = _einsum("bans,base->bane", weights_BAnS.astype(v_BASE.dtype), v_BASE)
        # Dividing the result instead of the weights saves a pass over the scores.
        out_BAnE = (out_BAnE / sum_BAn[..., None]).astype(q_BAnE.dtype)
        return out_BAnE, highest_BAn + jnp.log(sum_BAn)

    out_CBAnE, log_sum_CBAn = jax.lax.map(attend, _chunks(q_BNAE, chunk))
    out_BNAE = _whole(out_CBAnE, q_BNAE.shape[1])
    return out_BNAE, (q_BNAE, k_BSAE, v_BSAE, out_BNAE, log_sum_CBAn)


def _backward(
    chunk: int, kept: _Kept, gradient_BNAE: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    q_BNAE, k_BSAE, v_BSAE, out_BNAE, log_sum_CBAn = kept
    k_BASE, v_BASE = _by_heads(k_BSAE), _by_heads(v_BSAE)

    def attend(
        sums: tuple[jax.Array, jax.Array], of_chunk: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        q_BAnE, out_BAnE, gradient_BAnE, log_sum_BAn = of_chunk
        dtype = q_BAnE.dtype
        weights_BAnS = jnp.exp(_scores(q_BAnE, k_BASE) - log_sum_BAn[..., None])
        to_weights_BAnS = _einsum("bane,base->bans", gradient_BAnE, v_BASE)
        # Softmax does not depend on a constant added to all scores of a query: remove that part.
        common_BAn = jnp.sum(gradient_BAnE.astype(jnp.float32) * out_BAnE, axis=-1)
        to_scores_BAnS = weights_BAnS * (to_weights_BAnS - common_BAn[..., None])
        to_scores_BAnS = (to_scores_BAnS * q_BAnE.shape[-1] ** -0.5).astype(dtype)
        to_k_BASE = _einsum("bans,bane->base", to_scores_BAnS, q_BAnE)
        to_v_BASE = _einsum("bans,bane->base", weights_BAnS.astype(dtype), gradient_BAnE)
        to_q_BAnE = _einsum("bans,base->bane", to_scores_BAnS, k_BASE).astype(dtype)
        return (sums[0] + to_k_BASE, sums[1] + to_v_BASE), to_q_BAnE

    of_chunks = (*(_chunks(x, chunk) for x in (q_BNAE, out_BNAE, gradient_BNAE)), log_sum_CBAn)
    zeros = jnp.zeros_like(k_BASE, jnp.float32), jnp.zeros_like(v_BASE, jnp.float32)
    (to_k_BASE, to_v_BASE), to_q_CBAnE = jax.lax.scan(attend, zeros, of_chunks)
    return (
        _whole(to_q_CBAnE, q_BNAE.shape[1]),
        _by_heads(to_k_BASE).astype(k_BSAE.dtype),
        _by_heads(to_v_BASE).astype(v_BSAE.dtype),
    )


softmax_attention.defvjp(_forward, _backward)


def _scores(q_BAnE: jax.Array, k_BASE: jax.Array) -> jax.Array:
    return _einsum("bane,base->bans", q_BAnE, k_BASE) * q_BAnE.shape[-1] ** -0.5


def _einsum(names: str, *arrays: jax.Array) -> jax.Array:
    return jnp.einsum(names, *arrays, preferred_element_type=jnp.float32)


def _by_heads(x: jax.Array) -> jax.Array:
    """`[B, S, A, E]` to `[B, A, S, E]`, and back."""
    return jnp.swapaxes(x, 1, 2)


def _chunks(x_BNAE: jax.Array, chunk: int) -> jax.Array:
    """`[B, N, A, E]` to `[C, B, A, n, E]`; the last chunk is padded with zeros."""
    missing = -x_BNAE.shape[1] % chunk
    padded = jnp.pad(x_BNAE, ((0, 0), (0, missing), (0, 0), (0, 0)))
    return rearrange(padded, "b (c n) a e -> c b a n e", n=chunk)


def _whole(x_CBAnE: jax.Array, num_queries: int) -> jax.Array:
    """The inverse of `_chunks`."""
    return rearrange(x_CBAnE, "c b a n e -> b (c n) a e")[:, :num_queries]
