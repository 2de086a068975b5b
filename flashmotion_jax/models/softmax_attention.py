"""Attention in chunks of heads and queries, whose backward pass recomputes the attention weights.

The forward pass saves its result and the log-sum-exp of each query instead of the weights, which
would be an N x N matrix. On a CPU, recomputing them is also faster than writing and reading them.

Source: Dao et al., "FlashAttention", arXiv:2205.14135, appendix B, equations of the gradients.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange


class Chunk(NamedTuple):
    """The part of the heads and queries whose scores exist at the same time."""

    heads: int  # a divisor of the number of heads
    queries: int


def choose_chunk(num_heads: int, num_queries: int, max_scores: int) -> Chunk:
    """Returns the largest chunk: all queries of some heads, or some queries of one head.

    Args:
      num_heads: Number of heads A.
      num_queries: Number of queries N.
      max_scores: Maximum number of (head, query) pairs in a chunk.
    """
    heads = max(1, min(num_heads, max_scores // num_queries))
    while num_heads % heads:
        heads -= 1
    num_chunks = math.ceil(num_queries / max(1, min(num_queries, max_scores)))
    return Chunk(heads, math.ceil(num_queries / num_chunks))  # equal chunks need little padding


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def softmax_attention(
    q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array, chunk: Chunk
) -> jax.Array:
    """softmax(q k^T / sqrt(E)) v, the softmax in float32.

    Args:
      q_BNAE: Queries.
      k_BSAE: Keys, in the dtype of the queries.
      v_BSAE: Values, likewise.
      chunk: Heads and queries per chunk.

    Returns:
      `[B, N, A, E]` in the dtype of the queries.
    """
    return _forward(q_BNAE, k_BSAE, v_BSAE, chunk)[0]


_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(
    q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array, chunk: Chunk
) -> tuple[jax.Array, _Kept]:
    scale = q_BNAE.shape[-1] ** -0.5

    def attend(
        k_BaSE: jax.Array, v_BaSE: jax.Array, q_BanE: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        scores_BanS = _einsum("bane,base->bans", q_BanE, k_BaSE)
        highest_Ban = scores_BanS.max(axis=-1)  # subtracted so that exp cannot overflow
        weights_BanS = jnp.exp((scores_BanS - highest_Ban[..., None]) * scale)
        sum_Ban = weights_BanS.sum(axis=-1)
        out_BanE = _einsum("bans,base->bane", weights_BanS.astype(v_BaSE.dtype), v_BaSE)
        # Dividing the result instead of the weights saves a pass over the scores.
        out_BanE = (out_BanE / sum_Ban[..., None]).astype(q_BanE.dtype)
        return out_BanE, highest_Ban * scale + jnp.log(sum_Ban)

    def of_heads(heads: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q_CBanE, k_BaSE, v_BaSE = heads
        return jax.lax.map(functools.partial(attend, k_BaSE, v_BaSE), q_CBanE)

    some_heads = _chunks(q_BNAE, chunk), _by_heads(k_BSAE, chunk), _by_heads(v_BSAE, chunk)
    out_HCBanE, log_sum_HCBan = jax.lax.map(of_heads, some_heads)
    out_BNAE = _whole(out_HCBanE, q_BNAE.shape[1])
    return out_BNAE, (q_BNAE, k_BSAE, v_BSAE, out_BNAE, log_sum_HCBan)


def _backward(
    chunk: Chunk, kept: _Kept, gradient_BNAE: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    q_BNAE, k_BSAE, v_BSAE, out_BNAE, log_sum_HCBan = kept
    scale = q_BNAE.shape[-1] ** -0.5

    def attend(
        k_BaSE: jax.Array,
        v_BaSE: jax.Array,
        sums: tuple[jax.Array, jax.Array],
        of_chunk: tuple[jax.Array, ...],
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        q_BanE, out_BanE, gradient_BanE, log_sum_Ban = of_chunk
        dtype = q_BanE.dtype
        scores_BanS = _einsum("bane,base->bans", q_BanE, k_BaSE)
        weights_BanS = jnp.exp(scores_BanS * scale - log_sum_Ban[..., None])
        to_weights_BanS = _einsum("bane,base->bans", gradient_BanE, v_BaSE)
        # Softmax does not depend on a constant added to all scores of a query: remove that part.
        common_Ban = jnp.sum(gradient_BanE.astype(jnp.float32) * out_BanE, axis=-1)
        to_scores_BanS = (weights_BanS * (to_weights_BanS - common_Ban[..., None])).astype(dtype)
        to_k_BaSE = _einsum("bans,bane->base", to_scores_BanS, q_BanE) * scale
        to_v_BaSE = _einsum("bans,bane->base", weights_BanS.astype(dtype), gradient_BanE)
        to_q_BanE = _einsum("bans,base->bane", to_scores_BanS, k_BaSE) * scale
        return (sums[0] + to_k_BaSE, sums[1] + to_v_BaSE), to_q_BanE.astype(dtype)

    def of_heads(heads: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        k_BaSE, v_BaSE, *of_chunks = heads
        zeros = jnp.zeros_like(k_BaSE, jnp.float32), jnp.zeros_like(v_BaSE, jnp.float32)
        return jax.lax.scan(functools.partial(attend, k_BaSE, v_BaSE), zeros, tuple(of_chunks))

    (to_k_HBaSE, to_v_HBaSE), to_q_HCBanE = jax.lax.map(
        of_heads,
        (
            *(_by_heads(x, chunk) for x in (k_BSAE, v_BSAE)),
            *(_chunks(x, chunk) for x in (q_BNAE, out_BNAE, gradient_BNAE)),
            log_sum_HCBan,
        ),
    )
    return (
        _whole(to_q_HCBanE, q_BNAE.shape[1]),
        rearrange(to_k_HBaSE, "h b a s e -> b s (h a) e").astype(k_BSAE.dtype),
        rearrange(to_v_HBaSE, "h b a s e -> b s (h a) e").astype(v_BSAE.dtype),
    )


softmax_attention.defvjp(_forward, _backward)


def _einsum(names: str, *arrays: jax.Array) -> jax.Array:
    return jnp.einsum(names, *arrays, preferred_element_type=jnp.float32)


def _by_heads(x_BSAE: jax.Array, chunk: Chunk) -> jax.Array:
    """`[B, S, A, E]` to `[H, B, a, S, E]`: H times a heads."""
    return rearrange(x_BSAE, "b s (h a) e -> h b a s e", a=chunk.heads)


def _chunks(x_BNAE: jax.Array, chunk: Chunk) -> jax.Array:
    """`[B, N, A, E]` to `[H, C, B, a, n, E]`; the last chunk is padded with zeros."""
    missing = -x_BNAE.shape[1] % chunk.queries
    padded = jnp.pad(x_BNAE, ((0, 0), (0, missing), (0, 0), (0, 0)))
    return rearrange(padded, "b (c n) (h a) e -> h c b a n e", n=chunk.queries, a=chunk.heads)


def _whole(x_HCBanE: jax.Array, num_queries: int) -> jax.Array:
    """The inverse of `_chunks`."""
    return rearrange(x_HCBanE, "h c b a n e -> b (c n) (h a) e")[:, :num_queries]
