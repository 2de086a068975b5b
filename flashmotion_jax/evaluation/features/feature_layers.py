"""Layers of the networks of metrics, which are applied but never trained here.

Their parameters are float32 and replicated on every device, so they have no logical axes and no
precision policy. Channels are last, `[B, (T,) H, W, C]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import broadcast_to_rank


class FrozenConv(nnx.Module):
    """A 2D or 3D convolution, batch normalization with fixed statistics, and ReLU.

    The third dimension is time. Its taps are concatenated as channels of a 2D convolution, which is
    much faster than a 3D convolution on a CPU.

    Args:
      in_channels: Channels of the input.
      out_channels: Channels of the output.
      kernel: Kernel size in (time,) height and width.
      strides: Strides in (time,) height and width.
      padding: "SAME" as TensorFlow pads, or "VALID".
      eps: Added to the variance.
      activate: Whether to normalize and apply ReLU; otherwise only a bias is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        *,
        strides: Sequence[int],
        padding: str,
        eps: float,
        activate: bool = True,
    ):
        self.kernel = nnx.Param(jnp.zeros((*kernel, in_channels, out_channels)))
        self.bias = nnx.Param(jnp.zeros(out_channels))
        self.strides, self.padding, self.eps = tuple(strides), padding, eps
        self.activate = activate
        if activate:
            self.scale = nnx.Param(jnp.ones(out_channels))
            self.mean = nnx.Param(jnp.zeros(out_channels))
            self.variance = nnx.Param(jnp.ones(out_channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, (T,) H, W, C]`."""
        kernel, strides = self.kernel[...], self.strides
        lead = x.shape[:-3]
        if kernel.ndim == 5:
            x, lead = _taps_as_channels(x, kernel.shape[0], strides[0])
            kernel = kernel.transpose(1, 2, 0, 3, 4)
            kernel = kernel.reshape(*kernel.shape[:2], -1, kernel.shape[-1])
        y = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[-3:]),
            kernel,
            strides[-2:],
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        y = y.reshape(*lead, *y.shape[1:])
        bias = broadcast_to_rank(self.bias[...], y.ndim)
        if not self.activate:
            return y + bias
        factor = self.scale[...] * jax.lax.rsqrt(self.variance[...] + self.eps)
        mean, factor = (broadcast_to_rank(x, y.ndim) for x in (self.mean[...], factor))
        return jax.nn.relu((y - mean) * factor + bias)


def max_pool(
    x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: str
) -> jax.Array:
    """Max pooling; `window` and `strides` in (time,) height and width."""
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *strides, 1), padding
    )


def average_pool(x: jax.Array, window: Sequence[int], padding: str) -> jax.Array:
    """Average pooling with stride 1, in which padded values do not count."""
    sizes, ones = (1, *window, 1), (1,) * x.ndim
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, sizes, ones, padding)
    inside = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    return total / jax.lax.reduce_window(inside, 0.0, jax.lax.add, sizes, ones, padding)


def _taps_as_channels(
    x_BTHWC: jax.Array, taps: int, stride: int
) -> tuple[jax.Array, tuple[int, int]]:
    """Concatenates taps in time: `[B, T', H, W, taps * C]`, zeros past the ends; and (B, T')."""
    batch, frames = x_BTHWC.shape[:2]
    kept = -(-frames // stride)
    missing = max((kept - 1) * stride + taps - frames, 0)
    before = missing // 2
    padded = jnp.pad(x_BTHWC, [(0, 0), (before, missing - before), *[(0, 0)] * 3])
    shifted = [padded[:, i : i + (kept - 1) * stride + 1 : stride] for i in range(taps)]
    return jnp.concatenate(shifted, axis=-1), (batch, kept)
