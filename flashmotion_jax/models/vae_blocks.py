"""The parts of the video autoencoder: causal convolutions, residual blocks, resampling levels.

Columns may be split over the devices of "context": convolutions then exchange columns with
neighboring devices (halo exchange), and attention gathers all columns.

Source: Wan2.2 `wan/modules/vae2_2.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.lax import broadcast_to_rank

from flashmotion_jax.models import layers
from flashmotion_jax.models.attention import attention
from flashmotion_jax.models.convolution import (
    convolve,
    double_and_convolve,
    has_few_pixels,
    multiply_windows,
)
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.models.space_to_depth import average_down, duplicate_up
from flashmotion_jax.models.streaming import Stream
from flashmotion_jax.runtime.jit import backend
from flashmotion_jax.runtime.sharding import context_size, is_one_device


def conv3d(x_BTHWC: jax.Array, kernel: jax.Array, time_stride: int = 1) -> jax.Array:
    """Convolution with a kernel `[kt, kh, kw, C_in, C_out]`, "VALID" in time, "SAME" in space.

    Except on TPUs, it is a 2-D convolution of each frame and its past, concatenated along channels.
    On CPUs XLA runs that faster than a 3-D convolution, or one per time step of the kernel, if it
    is not of a few pixels; on GPUs it uses the channels-last layout of the tensor cores for 2-D
    convolutions only.
    """
    if backend() == "tpu":
        return jax.lax.conv_general_dilated(
            x_BTHWC,
            kernel,
            (time_stride, 1, 1),
            ((0, 0), *((size // 2, size // 2) for size in kernel.shape[1:3])),
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )
    # The CPU would accumulate in bfloat16; cuDNN accumulates in float32 but cannot return it.
    sum_dtype = jnp.float32 if backend() == "cpu" else None
    if time_stride == 1 and has_few_pixels(x_BTHWC[:, kernel.shape[0] - 1 :], kernel):
        rows, columns = kernel.shape[1] // 2, kernel.shape[2] // 2
        sides = ((rows, rows), (columns, columns))
        return multiply_windows(x_BTHWC, kernel, sides, sum_dtype).astype(x_BTHWC.dtype)
    time_size = kernel.shape[0]
    num_frames = (x_BTHWC.shape[1] - time_size) // time_stride + 1
    span = (num_frames - 1) * time_stride + 1
    taps = [x_BTHWC[:, i : i + span : time_stride] for i in range(time_size)]
    # Channels of the concatenated frames are in the order (time, channel), as in the kernel.
    flat_kernel = rearrange(kernel, "t h w i o -> h w (t i) o")

    def convolve_frames(x_NHWC: jax.Array) -> jax.Array:
        return convolve(x_NHWC, flat_kernel, (1, 1), "SAME", preferred_element_type=sum_dtype)

    return layers.per_frame(convolve_frames, jnp.concatenate(taps, axis=-1)).astype(x_BTHWC.dtype)


def beside_neighbors(
    convolve: Callable[[jax.Array], jax.Array], x_BTHWC: jax.Array, left: int = 1, right: int = 1
) -> jax.Array:
    """Runs a convolution on columns whose neighbors may be on other devices (halo exchange).

    Args:
      convolve: Function that pads the sides with zeros; it may halve or double the columns.
      x_BTHWC: All columns, or those of this device.
      left: Columns to the left that the first result depends on.
      right: Columns to the right that the last result depends on.

    Returns:
      The part of the convolution of all columns that belongs to these.
    """
    if not _are_columns_split():
        return convolve(x_BTHWC)
    parts = [_columns_of_neighbor(x_BTHWC[:, :, :, -left:], 1)] if left else []
    parts += [x_BTHWC, _columns_of_neighbor(x_BTHWC[:, :, :, :right], -1)]
    extended = jnp.concatenate(parts, axis=3)
    out = convolve(extended)
    # The outermost results depend on the zero padding; the neighbors compute them correctly.
    start, end = (n * out.shape[3] // extended.shape[3] for n in (left, extended.shape[3] - right))
    return out[:, :, :, start:end]


def _columns_of_neighbor(columns: jax.Array, step: int) -> jax.Array:
    """Shifts columns by `step` devices; the first or last device gets zeros, the usual padding."""
    size = context_size()
    pairs = [(i, i + step) for i in range(size) if 0 <= i + step < size]
    return jax.lax.ppermute(columns, "context", pairs)


def _gather_columns(tokens_NSC: jax.Array) -> jax.Array:
    """Gathers the tokens of all columns, in any order."""
    if not _are_columns_split():
        return tokens_NSC
    return jax.lax.all_gather(tokens_NSC, "context", axis=1, tiled=True)


def _are_columns_split() -> bool:
    return is_one_device() and context_size() > 1


class CausalConv(nnx.Module):
    """A 3-D convolution over present and past frames."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_size: int = 3,
        space_size: int = 3,
        policy: Policy,
        rngs: nnx.Rngs,
    ):
        shape = (time_size, space_size, space_size, in_channels, out_channels)
        init = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(
            init(rngs.params(), shape, policy.params),
            axes=(None, None, None, "channels_in", "channels_out"),
        )
        self.bias = nnx.Param(jnp.zeros(out_channels, policy.params), axes=("channels_out",))
        self.dtype = policy.compute

    def __call__(self, x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
        """Convolves a chunk; the frame count stays the same."""
        x_BTHWC = x_BTHWC.astype(self.dtype)
        extended = stream.extend(x_BTHWC, self.kernel.shape[0] - 1)
        if stream.is_first and x_BTHWC.shape[1] == 1:
            return self.apply(x_BTHWC, taps=1)  # the rest would multiply zeros: a third of the work
        return self.apply(extended)

    def apply(self, x_BTHWC: jax.Array, time_stride: int = 1, taps: int | None = None) -> jax.Array:
        """Convolves frames that include their past, with all kernel slices in time or the last."""
        kernel = self.kernel[...].astype(self.dtype)
        kernel = kernel if taps is None else kernel[-taps:]

        def convolve(x_BTHWC: jax.Array) -> jax.Array:
            return conv3d(x_BTHWC, kernel, time_stride)

        out = convolve(x_BTHWC) if kernel.shape[2] == 1 else beside_neighbors(convolve, x_BTHWC)
        return out + broadcast_to_rank(self.bias[...].astype(self.dtype), 5)


class ChannelNorm(nnx.Module):
    """RMS norm over channels, `x / ||x|| * sqrt(C) * scale`, in float32."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels), axes=("norm",))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes the last dimension; the dtype stays."""
        x_float = x.astype(jnp.float32)
        # Not rsqrt(mean + eps): torch's F.normalize clamps the norm, which matters for zero frames.
        norm = jnp.maximum(jnp.sqrt(jnp.sum(x_float**2, axis=-1, keepdims=True)), 1e-12)
        scale = broadcast_to_rank(self.scale[...], x.ndim)
        return (x_float / norm * math.sqrt(x.shape[-1]) * scale).astype(x.dtype)


class ResidualBlock(nnx.Module):
    """Two pre-norm causal convolutions with a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, *, policy: Policy, rngs: nnx.Rngs):
        self.norm1 = ChannelNorm(in_channels)
        self.conv1 = CausalConv(in_channels, out_channels, policy=policy, rngs=rngs)
        self.norm2 = ChannelNorm(out_channels)
        self.conv2 = CausalConv(out_channels, out_channels, policy=policy, rngs=rngs)
        self.shortcut = (
            pointwise(in_channels, out_channels, policy=policy, rngs=rngs)
            if in_channels != out_channels
            else None
        )

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk `[B, T, H, W, C_in]` to `[B, T, H, W, C_out]`."""
        shortcut = self.shortcut(x) if self.shortcut else x
        x = self.conv1(jax.nn.silu(self.norm1(x)), stream)
        return shortcut + self.conv2(jax.nn.silu(self.norm2(x)), stream)


def pointwise(in_channels: int, out_channels: int, *, policy: Policy, rngs: nnx.Rngs) -> nnx.Linear:
    """A 1x1(x1) convolution: a matmul over channels."""
    return layers.linear(
        in_channels, out_channels, ("channels_in", "channels_out"), policy=policy, rngs=rngs
    )


class SpatialAttention(nnx.Module):
    """Single-head attention within each frame, over its H x W positions."""

    def __init__(self, channels: int, *, policy: Policy, rngs: nnx.Rngs):
        self.norm = ChannelNorm(channels)
        self.to_qkv = pointwise(channels, 3 * channels, policy=policy, rngs=rngs)
        self.proj = pointwise(channels, channels, policy=policy, rngs=rngs)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk; frames are independent, so the stream is not used."""
        del stream
        return x + layers.per_frame(self._attend, x)

    def _attend(self, x_NHWC: jax.Array) -> jax.Array:
        height = x_NHWC.shape[1]
        qkv = rearrange(self.to_qkv(self.norm(x_NHWC)), "n h w c -> n (h w) c")
        q, k, v = jnp.split(qkv, 3, axis=-1)
        # One head of all channels.
        out = attention(*(x[:, :, None] for x in (q, _gather_columns(k), _gather_columns(v))))
        return self.proj(rearrange(out[:, :, 0], "n (h w) c -> n h w c", h=height))


def middle(channels: int, *, policy: Policy, rngs: nnx.Rngs) -> nnx.List:
    """Residual block, spatial attention, residual block."""
    return nnx.List(
        [
            ResidualBlock(channels, channels, policy=policy, rngs=rngs),
            SpatialAttention(channels, policy=policy, rngs=rngs),
            ResidualBlock(channels, channels, policy=policy, rngs=rngs),
        ]
    )


@jax.named_scope("middle")
def run_middle(blocks: nnx.List, x: jax.Array, stream: Stream) -> jax.Array:
    """Runs the blocks of `middle` on a chunk."""
    for block in blocks:
        x = block(x, stream)
    return x


def residual_blocks(
    in_channels: int, out_channels: int, num_blocks: int, *, policy: Policy, rngs: nnx.Rngs
) -> nnx.List:
    """The residual blocks of a level; the first one changes the number of channels."""
    widths = [in_channels] + [out_channels] * num_blocks
    return nnx.List([ResidualBlock(*pair, policy=policy, rngs=rngs) for pair in pairwise(widths)])


class DownLevel(nnx.Module):
    """Residual blocks, then a downsampling of height and width, and of time if `halve_time`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        *,
        halve_space: bool,
        halve_time: bool,
        policy: Policy,
        rngs: nnx.Rngs,
    ):
        self.residuals = residual_blocks(
            in_channels, out_channels, num_blocks, policy=policy, rngs=rngs
        )
        self.resample = (
            layers.conv2d(
                out_channels,
                out_channels,
                3,
                strides=2,
                padding=((0, 1), (0, 1)),
                policy=policy,
                rngs=rngs,
            )
            if halve_space
            else None
        )
        self.time_conv = (
            CausalConv(out_channels, out_channels, space_size=1, policy=policy, rngs=rngs)
            if halve_time
            else None
        )
        self.factors = (1 + halve_time, 1 + halve_space)
        self.out_channels = out_channels

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk of `4 n` frames, or the single first frame."""
        shortcut = average_down(x, self.out_channels, *self.factors)
        for residual in self.residuals:
            x = residual(x, stream)
        if self.resample:
            x = beside_neighbors(
                functools.partial(layers.per_frame, self.resample), x, left=0, right=2
            )
        if self.time_conv:
            x = _halve_time(self.time_conv, x, stream)
        return x + shortcut


def _halve_time(time_conv: CausalConv, x: jax.Array, stream: Stream) -> jax.Array:
    if stream.is_first:  # the first frame is a latent frame of its own
        stream.remember(x)
        return x
    return time_conv.apply(stream.extend(x, 1), time_stride=2)


class UpLevel(nnx.Module):
    """Residual blocks, then an upsampling of time if `double_time`, and of height and width."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        *,
        double_space: bool,
        double_time: bool,
        policy: Policy,
        rngs: nnx.Rngs,
    ):
        self.residuals = residual_blocks(
            in_channels, out_channels, num_blocks, policy=policy, rngs=rngs
        )
        self.resample = (
            layers.conv2d(out_channels, out_channels, 3, policy=policy, rngs=rngs)
            if double_space
            else None
        )
        self.time_conv = (
            CausalConv(out_channels, 2 * out_channels, space_size=1, policy=policy, rngs=rngs)
            if double_time
            else None
        )
        self.factors = (1 + double_time, 1 + double_space)
        self.out_channels = out_channels
        self.dtype = policy.compute

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk; the first frame is not upsampled in time."""
        shortcut = x
        for residual in self.residuals:
            x = residual(x, stream)
        if self.time_conv:
            x = _double_time(self.time_conv, x, stream)
        if self.resample:
            x = beside_neighbors(functools.partial(layers.per_frame, self._double), x)
        time_factor, space_factor = self.factors
        if time_factor == space_factor == 1:
            return x
        shortcut = duplicate_up(shortcut, self.out_channels, time_factor, space_factor)
        return x + (shortcut[:, time_factor - 1 :] if stream.is_first else shortcut)

    def _double(self, x_NHWC: jax.Array) -> jax.Array:
        """Doubles height and width: nearest-neighbor upsampling and a convolution."""
        assert self.resample is not None
        kernel, bias = self.resample.kernel[...], self.resample.bias
        out = double_and_convolve(x_NHWC, kernel, self.dtype)
        return out if bias is None else out + broadcast_to_rank(bias[...].astype(self.dtype), 4)


def _double_time(time_conv: CausalConv, x: jax.Array, stream: Stream) -> jax.Array:
    if stream.is_first:
        # As in Wan2.2, the past of the second chunk is zeros, not this frame.
        stream.remember(jnp.repeat(jnp.zeros_like(x), 2, axis=1))
        return x
    # The two halves of the channels become alternating frames.
    return rearrange(time_conv(x, stream), "b t h w (n c) -> b (t n) h w c", n=2)
