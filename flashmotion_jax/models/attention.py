"""Exact attention that never holds an N x N matrix of scores, on one device or over a mesh.

On NVIDIA GPUs bfloat16 goes to cuDNN's flash attention, on TPUs to jax's splash kernel; everywhere
else, and where these do not fit, queries are taken in chunks against all keys.

Where a video's tokens are split over "context", each device trades its tokens of all heads for all
tokens of some heads (Ulysses), and back. Where there are more devices than the heads can be divided
among, some have the same heads: they gather keys and values from each other.

Source: Jacobs et al., "DeepSpeed Ulysses", arXiv:2309.14509.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec

from flashmotion_jax.models.softmax_attention import softmax_attention
from flashmotion_jax.models.splash_attention import fits_splash, splash_attention
from flashmotion_jax.runtime.jit import backend
from flashmotion_jax.runtime.sharding import context_size, is_mesh_hidden

#: Scores of one chunk that a device holds at a time, in elements (256 MiB in float32).
MAX_SCORES = 2**26


@jax.named_scope("attention")
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
        return jax.nn.dot_product_attention(q_BNAE, k_BSAE, v_BSAE, implementation="cudnn")
    if backend() == "tpu" and fits_splash(q_BNAE):
        return splash_attention(q_BNAE, k_BSAE, v_BSAE)
    num_queries, heads = q_BNAE.shape[1:3]
    own = (
        q_BNAE.shape if is_mesh_hidden() else jax.typeof(q_BNAE).sharding.shard_shape(q_BNAE.shape)
    )
    chunk = max(1, MAX_SCORES // (own[0] * heads * k_BSAE.shape[1]))
    return softmax_attention(q_BNAE, k_BSAE, v_BSAE, min(chunk, num_queries))


def attend_to_tokens(
    q_BTPAE: jax.Array, k_BTPAE: jax.Array, v_BTPAE: jax.Array, num_tokens: int
) -> jax.Array:
    """Attention of all tokens of a video to all of them.

    Args:
      q_BTPAE: queries of every frame's tokens, perhaps split over "context".
      k_BTPAE: keys, likewise.
      v_BTPAE: values, likewise.
      num_tokens: of a frame that are real; those behind them are not attended to.

    Returns:
      As the queries; of tokens that are not real, whatever comes out.
    """

    def local(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        heads = _Heads(q.shape[3])
        q, k, v = heads.scatter(q), heads.gather(heads.scatter(k)), heads.gather(heads.scatter(v))
        out = attention(_merge(q), *(_merge(x[:, :, :num_tokens]) for x in (k, v)))
        return heads.scatter_back(rearrange(out, "b (t p) a e -> b t p a e", t=q.shape[1]))

    return _on_each_device(local, q_BTPAE, k_BTPAE, v_BTPAE)


def attend_to_whole(q_BTPAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array) -> jax.Array:
    """Attention of tokens, perhaps split over "context", to what every device has whole: a text."""

    def local(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        out = attention(_merge(q), k, v)
        return rearrange(out, "b (t p) a e -> b t p a e", t=q.shape[1])

    return _on_each_device(local, q_BTPAE, k_BSAE, v_BSAE)


def _on_each_device(
    local: Callable[..., jax.Array], q: jax.Array, k: jax.Array, v: jax.Array
) -> jax.Array:
    """Runs `local` on each device's part: kernels and chunks then see the shapes that are there.

    On its own, the partitioner takes a kernel's result for whole on every device: it gathered all
    videos' attention, and each device computed the next matmul of all (docs/decisions.md).
    """
    if jax.sharding.get_abstract_mesh().empty:
        return local(q, k, v)
    specs = tuple(jax.typeof(x).sharding.spec for x in (q, k, v))

    def on_device(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        # Every device of "context" has the same text, but computes its own part of the gradient.
        return local(q, vary_along(k, specs[0], specs[1]), vary_along(v, specs[0], specs[2]))

    return jax.shard_map(on_device, in_specs=specs, out_specs=specs[0], check_vma=can_check_vma())(
        q, k, v
    )


def can_check_vma() -> bool:
    """Whether `jax.shard_map` can check along which mesh axes every value varies.

    Not on a TPU: jax's splash kernel does not declare it of its results (docs/decisions.md).
    """
    return backend() != "tpu"


def vary_along(x: jax.Array, wanted: PartitionSpec, own: PartitionSpec) -> jax.Array:
    """Declares that an array varies along more mesh axes, inside a `jax.shard_map`.

    Its value stays; its gradient is summed over these axes.

    Args:
      x: an array that is split as `own`.
      wanted: the axes along which it is to vary.
      own: the axes along which it varies.
    """
    missing = tuple(sorted(_axes(wanted) - _axes(own)))
    return jax.lax.pcast(x, missing, to="varying") if missing and can_check_vma() else x


def _axes(spec: PartitionSpec) -> set[str]:
    names = [name if isinstance(name, tuple) else (name,) for name in spec if name is not None]
    return {axis for group in names for axis in group}


def _merge(x_BTPAE: jax.Array) -> jax.Array:
    return rearrange(x_BTPAE, "b t p a e -> b (t p) a e")


class _Heads:
    """The trade of tokens for heads over the "context" of the mesh, on one device of it.

    Neighbors trade with each other, as many as divide the heads.
    """

    def __init__(self, num_heads: int):
        size = context_size()
        traders = math.gcd(num_heads, size)
        self._trades = traders > 1
        self._shares = traders < size
        self._neighbors = [list(range(start, start + traders)) for start in range(0, size, traders)]
        self._same_heads = [list(range(start, size, traders)) for start in range(traders)]

    def scatter(self, x_BTPAE: jax.Array) -> jax.Array:
        """All heads of some tokens to some heads of the neighbors' tokens."""
        return self._trade(x_BTPAE, split=3, join=2)

    def scatter_back(self, x_BTPAE: jax.Array) -> jax.Array:
        """The inverse of `scatter`."""
        return self._trade(x_BTPAE, split=2, join=3)

    def gather(self, x_BTPAE: jax.Array) -> jax.Array:
        """Tokens of the neighbors to all tokens, of the same heads."""
        if not self._shares:
            return x_BTPAE
        groups = self._same_heads
        return jax.lax.all_gather(x_BTPAE, "context", axis_index_groups=groups, axis=2, tiled=True)

    def _trade(self, x: jax.Array, split: int, join: int) -> jax.Array:
        if not self._trades:
            return x
        groups = self._neighbors
        return jax.lax.all_to_all(x, "context", split, join, axis_index_groups=groups, tiled=True)


def _fits_cudnn(q_BNAE: jax.Array) -> bool:
    """CuDNN's flash attention: 16-bit, heads of at most 128 (the VAE's single head is wider).

    A single query, as a classifier's, has no N x N matrix that a kernel would save.
    """
    num_queries, width = q_BNAE.shape[1], q_BNAE.shape[-1]
    is_16_bit = q_BNAE.dtype in (jnp.bfloat16, jnp.float16)
    return is_16_bit and num_queries > 1 and width <= 128 and width % 8 == 0
