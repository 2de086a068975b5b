"""Exact attention without an N x N matrix of scores, on one device or over a mesh.

16-bit attention uses flash attention: that of cuDNN or, on request, tokamax on NVIDIA GPUs, and
JAX's splash kernel on TPUs. Elsewhere, and for shapes that these do not support, chunks of heads
and queries attend to all keys.

When the tokens of a video are split over "context", an all-to-all exchanges some tokens with all
heads for all tokens with some heads, and back (Ulysses). When the heads do not divide over so many
devices, several devices have the same heads and gather keys and values from each other.

Source: Jacobs et al., "DeepSpeed Ulysses", arXiv:2309.14509.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec

from flashmotion_jax.models.softmax_attention import choose_chunk, softmax_attention
from flashmotion_jax.models.tokamax_attention import prepare_tokamax, tokamax_attention
from flashmotion_jax.runtime.jit import backend, tracing_with
from flashmotion_jax.runtime.sharding import context_size, is_mesh_hidden

#: Maximum number of scores per chunk and device (256 MiB in float32).
MAX_SCORES = 2**26
#: On a CPU, 4 MiB: several passes over scores that stay in the cache take half of the time.
MAX_SCORES_CPU = 2**20


Kernel = Literal["cuDNN", "tokamax", "splash", "chunked"]
"""Implementations of attention; "chunked" is plain XLA, chunk by chunk of heads and queries."""

GpuKernel = Literal["cuDNN", "tokamax"]
"""Implementations for 16 bits on NVIDIA GPUs."""

_GPU_KERNEL: ContextVar[GpuKernel] = ContextVar("gpu_kernel", default="cuDNN")


@contextlib.contextmanager
def attending_with(kernel: GpuKernel) -> Generator[None]:
    """Traces attention on NVIDIA GPUs with this kernel; elsewhere, nothing changes.

    Args:
      kernel: "cuDNN", or "tokamax" for H100 and later GPUs.

    Raises:
      ImportError: tokamax is not installed.
    """
    if kernel == "tokamax":
        prepare_tokamax()
    with tracing_with(_GPU_KERNEL, kernel):
        yield


@jax.named_scope("attention")
def attention(q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(E)) v, the softmax in float32.

    Args:
      q_BNAE: Queries of N tokens.
      k_BSAE: Keys of S tokens, in the dtype of the queries.
      v_BSAE: Values, likewise.

    Returns:
      `[B, N, A, E]` in the dtype of the queries.
    """
    kernel = choose_kernel(q_BNAE)
    if kernel == "cuDNN":
        return jax.nn.dot_product_attention(q_BNAE, k_BSAE, v_BSAE, implementation="cudnn")
    if kernel == "tokamax":
        return tokamax_attention(q_BNAE, k_BSAE, v_BSAE)
    if kernel == "splash":
        from flashmotion_jax.models.splash_attention import splash_attention

        return splash_attention(q_BNAE, k_BSAE, v_BSAE)
    num_queries, num_heads = q_BNAE.shape[1:3]
    # Of the array's shape, the part on one device limits the chunk.
    own = (
        q_BNAE.shape if is_mesh_hidden() else jax.typeof(q_BNAE).sharding.shard_shape(q_BNAE.shape)
    )
    max_scores = MAX_SCORES_CPU if backend() == "cpu" else MAX_SCORES
    chunk = choose_chunk(num_heads, num_queries, max_scores // (own[0] * k_BSAE.shape[1]))
    return softmax_attention(q_BNAE, k_BSAE, v_BSAE, chunk)


def gpu_kernel() -> GpuKernel:
    """The kernel for 16 bits on NVIDIA GPUs, see `attending_with`."""
    return _GPU_KERNEL.get()


def choose_kernel(q_BNAE: jax.Array | jax.ShapeDtypeStruct) -> Kernel:
    """The implementation of attention for queries of this shape and dtype on this backend."""
    if backend() == "gpu" and _fits_gpu(q_BNAE):
        return gpu_kernel()
    if backend() == "tpu":
        # Imported where it is used: with Pallas for TPUs, it takes as long as a small video.
        from flashmotion_jax.models.splash_attention import fits_splash

        if fits_splash(q_BNAE):
            return "splash"
    return "chunked"


def attend_to_tokens(
    q_BTPAE: jax.Array, k_BTPAE: jax.Array, v_BTPAE: jax.Array, num_tokens: int
) -> jax.Array:
    """Self-attention over all tokens of a video.

    Args:
      q_BTPAE: Queries of the tokens of every frame, which may be split over "context".
      k_BTPAE: Keys, likewise.
      v_BTPAE: Values, likewise.
      num_tokens: Tokens of a frame that are not padding. Padding is not attended to.

    Returns:
      An array like the queries, undefined for padding.
    """

    def local(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        heads = _Heads(q.shape[3])
        # Queries stay divided among devices with the same heads; they need all keys and values.
        q, k, v = heads.scatter(q), heads.gather(heads.scatter(k)), heads.gather(heads.scatter(v))
        # Padding behind each frame's tokens is cut from keys and values, not from queries.
        out = attention(_merge(q), *(_merge(x[:, :, :num_tokens]) for x in (k, v)))
        return heads.scatter_back(rearrange(out, "b (t p) a e -> b t p a e", t=q.shape[1]))

    return _on_each_device(local, q_BTPAE, k_BTPAE, v_BTPAE)


def attend_to_whole(q_BTPAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array) -> jax.Array:
    """Attention of tokens, which may be split over "context", to a text that every device has."""

    def local(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        out = attention(_merge(q), k, v)
        return rearrange(out, "b (t p) a e -> b t p a e", t=q.shape[1])

    return _on_each_device(local, q_BTPAE, k_BSAE, v_BSAE)


def _on_each_device(
    local: Callable[..., jax.Array], q: jax.Array, k: jax.Array, v: jax.Array
) -> jax.Array:
    """Runs `local` on the part of each device, so that kernels and chunks see local shapes.

    Otherwise the partitioner assumes that a kernel's result is replicated: it used to gather the
    attention of all videos, and every device computed the next matmul of all (docs/decisions.md).
    """
    if jax.sharding.get_abstract_mesh().empty:
        return local(q, k, v)
    specs = tuple(jax.typeof(x).sharding.spec for x in (q, k, v))

    def on_device(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        # Devices of "context" share the text, but each computes a part of its gradient.
        return local(q, vary_along(k, specs[0], specs[1]), vary_along(v, specs[0], specs[2]))

    return jax.shard_map(on_device, in_specs=specs, out_specs=specs[0], check_vma=can_check_vma())(
        q, k, v
    )


def can_check_vma() -> bool:
    """Whether `jax.shard_map` can check along which mesh axes values vary (`check_vma`).

    It cannot where the kernel does not declare it for its outputs (docs/decisions.md): JAX's splash
    kernel, and tokamax's.
    """
    return not (backend() == "tpu" or (backend() == "gpu" and gpu_kernel() == "tokamax"))


def vary_along(x: jax.Array, wanted: PartitionSpec, own: PartitionSpec) -> jax.Array:
    """Inside a `jax.shard_map`, marks an array as varying along more mesh axes.

    Its value does not change; its gradient is summed over these axes.

    Args:
      x: Array with the partition spec `own`.
      wanted: Partition spec with the axes along which the array should vary.
      own: Partition spec with the axes along which it varies.
    """
    missing = tuple(sorted(_axes(wanted) - _axes(own)))
    return jax.lax.pcast(x, missing, to="varying") if missing and can_check_vma() else x


def _axes(spec: PartitionSpec) -> set[str]:
    names = [name if isinstance(name, tuple) else (name,) for name in spec if name is not None]
    return {axis for group in names for axis in group}


def _merge(x_BTPAE: jax.Array) -> jax.Array:
    return rearrange(x_BTPAE, "b t p a e -> b (t p) a e")


class _Heads:
    """The exchange of tokens for heads over the "context" axis, seen from one device.

    Groups of neighboring devices, as many as divide the heads, exchange with each other.
    """

    def __init__(self, num_heads: int):
        size = context_size()
        # With 24 heads on 16 devices, groups of 8 exchange, and pairs of devices share heads.
        traders = math.gcd(num_heads, size)
        self._trades = traders > 1
        self._shares = traders < size
        self._neighbors = [list(range(start, start + traders)) for start in range(0, size, traders)]
        self._same_heads = [list(range(start, size, traders)) for start in range(traders)]

    def scatter(self, x_BTPAE: jax.Array) -> jax.Array:
        """From all heads of some tokens to some heads of all tokens of the group."""
        return self._trade(x_BTPAE, split=3, join=2)

    def scatter_back(self, x_BTPAE: jax.Array) -> jax.Array:
        """The inverse of `scatter`."""
        return self._trade(x_BTPAE, split=2, join=3)

    def gather(self, x_BTPAE: jax.Array) -> jax.Array:
        """From the tokens of the group to all tokens, with the same heads."""
        if not self._shares:
            return x_BTPAE
        groups = self._same_heads
        return jax.lax.all_gather(x_BTPAE, "context", axis_index_groups=groups, axis=2, tiled=True)

    def _trade(self, x: jax.Array, split: int, join: int) -> jax.Array:
        if not self._trades:
            return x
        groups = self._neighbors
        return jax.lax.all_to_all(x, "context", split, join, axis_index_groups=groups, tiled=True)


def _fits_gpu(q_BNAE: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether GPU kernels support it: 16 bits, and heads up to 128; that of the VAE is wider.

    For a single query, as in the discriminator, there is no N x N matrix to avoid.
    """
    num_queries, width = q_BNAE.shape[1], q_BNAE.shape[-1]
    is_16_bit = q_BNAE.dtype in (jnp.bfloat16, jnp.float16)
    return is_16_bit and num_queries > 1 and width <= 128 and width % 8 == 0
