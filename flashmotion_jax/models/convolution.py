"""Convolution that is fast on CPUs: of small images, and its gradients, also inside loops.

XLA's own gradients are a convolution with the image as its kernel, and one with swapped dimensions.
In the body of a `lax.scan`, neither uses the CPU's fast library, and both take 15 to 30 times as
long (jax 0.10, `tools/measure_convolution.py`). Here they are matmuls, one per position of the
kernel, and a convolution of the same form as the forward one.

Of few pixels, XLA's convolution spends most of its time on reordering the kernel, on every call.
There a convolution is one matmul of the windows of the images (im2col) and the kernel as it is.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec

from flashmotion_jax.runtime.jit import backend
from flashmotion_jax.runtime.sharding import is_mesh_hidden

Padding = tuple[tuple[int, int], tuple[int, int]]

#: Pixels of all images up to which windows are multiplied on a CPU: 1.5 to 5 times as fast with 512
#: to 1,024 channels, and 1.2 times slower at 1,024 pixels (docs/results.md).
FEW_PIXELS = 256
#: Weights from which a kernel takes long to reorder. With fewer, windows only compile more slowly.
LARGE_KERNEL = 2**20


def convolve(
    x_NHWC: jax.Array,
    kernel: jax.Array,
    window_strides: tuple[int, int],
    padding: Any,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` of images, with the gradients above on a CPU.

    Args:
      x_NHWC: Images.
      kernel: `[kh, kw, C_in, C_out]`.
      window_strides: Strides in height and width.
      padding: "SAME", "VALID" or pixels `((top, bottom), (left, right))`.
      **options: Options of `lax.conv_general_dilated`. With dilation or groups, the gradients are
        XLA's.

    Returns:
      `[N, H', W', C_out]`.
    """
    options |= {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    plain = options.get("feature_group_count", 1) == 1 and not any(
        factor != 1
        for name in ("lhs_dilation", "rhs_dilation")
        for factor in options.get(name) or ()
    )
    if backend() != "cpu" or not plain:
        return jax.lax.conv_general_dilated(x_NHWC, kernel, window_strides, padding, **options)
    if isinstance(padding, str):
        sizes = x_NHWC.shape[1:3], kernel.shape[:2], tuple(window_strides)
        padding = jax.lax.padtype_to_pads(*sizes, padding)
    (top, bottom), (left, right) = padding
    if tuple(window_strides) == (1, 1) and has_few_pixels(x_NHWC, kernel):
        sum_dtype = options.get("preferred_element_type")
        return multiply_windows(x_NHWC[:, None], kernel[None], padding, sum_dtype)[:, 0]
    return _convolve(
        x_NHWC,
        kernel,
        tuple(window_strides),
        ((top, bottom), (left, right)),
        options.get("preferred_element_type"),
    )


def has_few_pixels(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether images or videos `[..., H, W, C]` are best convolved by `multiply_windows`."""
    is_small = math.prod(x.shape[:-1]) <= FEW_PIXELS and kernel.size >= LARGE_KERNEL
    return backend() == "cpu" and is_small


def multiply_windows(
    x_BTHWC: jax.Array, kernel: jax.Array, padding: Padding, dtype: Any = None
) -> jax.Array:
    """A convolution without strides as one matmul, which reads the kernel in its own order.

    Args:
      x_BTHWC: Videos, or images with T = 1.
      kernel: `[kt, kh, kw, C_in, C_out]`.
      padding: Pixels above and below, left and right; there is none in time.
      dtype: Dtype of the sums and of the result; None for that of the videos.

    Returns:
      `[B, T - kt + 1, H', W', C_out]`.
    """
    padded = jnp.pad(x_BTHWC, ((0, 0), (0, 0), *padding, (0, 0)))
    windows = padded
    for axis in (3, 2, 1):  # one after another: 9 slices to compile instead of 27
        size = kernel.shape[axis - 1]
        count = windows.shape[axis] - size + 1
        slices = [jax.lax.slice_in_dim(windows, i, i + count, axis=axis) for i in range(size)]
        windows = jnp.concatenate(slices, axis=-1)
    return jnp.einsum(
        "bthwi,io->bthwo",
        windows,
        rearrange(kernel, "t h w i o -> (t h w i) o"),
        preferred_element_type=dtype,
    )


def double_and_convolve(x_NHWC: jax.Array, kernel: jax.Array, dtype: Any) -> jax.Array:
    """Nearest-neighbor upsampling by two, followed by a 3 x 3 convolution.

    Each output pixel depends on two rows and two columns of the input. The weights that fall on the
    same input pixel are added, which gives a 2 x 2 kernel for each of the four output pixels of a
    cell: 16 products instead of 36.

    Args:
      x_NHWC: Images.
      kernel: `[3, 3, C_in, C_out]`.
      dtype: Dtype of the products; weights are added in float32.

    Returns:
      `[N, 2 H, 2 W, C_out]` in `dtype`, with zero padding at the border.
    """
    num_images, height, width, _ = x_NHWC.shape
    by_row = _sums_by_place(kernel.astype(jnp.float32), axis=0)
    kernels = [place for rows in by_row for place in _sums_by_place(rows, axis=1)]
    out = convolve(
        x_NHWC.astype(dtype),
        jnp.concatenate(kernels, axis=3).astype(dtype),
        (1, 1),
        ((1, 1), (1, 1)),
    )
    places = jnp.split(out, 4, axis=3)
    cells = [
        place[:, row : row + height, column : column + width]
        for place, (row, column) in zip(places, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True)
    ]
    upper, lower = (jnp.stack(pair, axis=3) for pair in (cells[:2], cells[2:]))
    columns = (num_images, height, 2 * width, -1)
    rows = jnp.stack([upper.reshape(columns), lower.reshape(columns)], axis=2)
    return rows.reshape(num_images, 2 * height, 2 * width, -1)


def _sums_by_place(kernel: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Sums of the weights on the two input pixels, for the first and second pixel of a cell."""
    before, own, after = jnp.split(kernel, 3, axis=axis)
    return (
        jnp.concatenate([before, own + after], axis=axis),
        jnp.concatenate([before + own, after], axis=axis),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(
    x_NHWC: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding, dtype: Any
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x_NHWC,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=dtype,
    )


def _forward(
    x_NHWC: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding, dtype: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x_NHWC, kernel, strides, padding, dtype), (x_NHWC, kernel)


def _backward(
    strides: tuple[int, int],
    padding: Padding,
    dtype: Any,
    residuals: tuple[jax.Array, jax.Array],
    gradient_NHWC: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    del dtype
    x_NHWC, kernel = residuals
    gradient_NHWC = gradient_NHWC.astype(x_NHWC.dtype)
    of_x = _gradient_of_images(x_NHWC.shape, kernel, strides, padding, gradient_NHWC)
    return of_x, _gradient_of_kernel(x_NHWC, kernel, strides, padding, gradient_NHWC)


_convolve.defvjp(_forward, _backward)


def _gradient_of_images(
    shape: tuple[int, ...],
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Padding,
    gradient_NHWC: jax.Array,
) -> jax.Array:
    """Convolves the dilated gradient with the flipped kernel."""
    spread_NHWC = _spread(shape, kernel.shape, strides, padding, gradient_NHWC)
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _convolve(spread_NHWC, turned, (1, 1), ((0, 0), (0, 0)), None)


def _spread(
    shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    strides: tuple[int, int],
    padding: Padding,
    gradient_NHWC: jax.Array,
) -> jax.Array:
    """Dilates the gradient by the stride and pads it with zeros.

    Pixel `x + k` of the result, from 0, is what image pixel x receives through position
    `size - 1 - k` of the kernel.
    """
    config = [(0, 0, 0)]
    for axis in (0, 1):
        size, stride = kernel_shape[axis], strides[axis]
        low = size - 1 - padding[axis][0]
        spread = (gradient_NHWC.shape[1 + axis] - 1) * stride + 1
        config.append((low, shape[1 + axis] + size - 1 - low - spread, stride - 1))
    zero = jnp.zeros((), gradient_NHWC.dtype)
    return jax.lax.pad(gradient_NHWC, zero, [*config, (0,) * 3])


def _gradient_of_kernel(
    x_NHWC: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Padding,
    gradient_NHWC: jax.Array,
) -> jax.Array:
    """One matmul over all pixels, or one per position of the kernel.

    The single matmul needs all shifted copies of the gradient side by side. That is faster only if
    the gradient has fewer channels than the images.
    """
    rows, columns = kernel.shape[:2]
    whole = None if is_mesh_hidden() else PartitionSpec(None, None)

    def summed(images: jax.Array, gradients: jax.Array) -> jax.Array:
        return jnp.einsum(
            "nhwi,nhwo->io",
            images,
            gradients,
            preferred_element_type=jnp.float32,
            out_sharding=whole,
        )

    if strides == (1, 1) and kernel.shape[3] < kernel.shape[2]:
        height, width = x_NHWC.shape[1:3]
        spread = _spread(x_NHWC.shape, kernel.shape, strides, padding, gradient_NHWC)
        shifted = [
            spread[:, i : i + height, j : j + width]
            for i in reversed(range(rows))
            for j in reversed(range(columns))
        ]
        gradient = summed(x_NHWC, jnp.concatenate(shifted, axis=3))
        gradient = gradient.reshape(-1, rows, columns, kernel.shape[3]).transpose(1, 2, 0, 3)
        return gradient.astype(kernel.dtype)

    padded = jnp.pad(x_NHWC, ((0, 0), *padding, (0, 0)))
    height, width = (
        (n - 1) * s + 1 for n, s in zip(gradient_NHWC.shape[1:3], strides, strict=True)
    )

    def at(row: int, column: int) -> jax.Array:
        window = padded[:, row : row + height : strides[0], column : column + width : strides[1]]
        return summed(window, gradient_NHWC)

    gradient = jnp.stack([jnp.stack([at(i, j) for j in range(columns)]) for i in range(rows)])
    return gradient.astype(kernel.dtype)
