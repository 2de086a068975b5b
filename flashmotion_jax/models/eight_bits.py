"""Linear layers and embeddings whose weights are stored in 8 bits, and their matmuls.

A weight is an int8 or float8 array and a float32 scale per output channel. For each token, the
input is rounded to the same format with a scale of its own, the matmul multiplies 8-bit numbers
and adds in 32 bits, and the result is multiplied by both scales. Stacked weights stay in 8 bits
through a scan, which slices values and scales alike.

The weight of a linear layer is `[out, in]`, as in PyTorch, not `[in, out]`: GPUs want the summed
axis last, and XLA would transpose the weights of all layers at once, into memory of their size.

Source: LLM.int8(), arXiv:2208.07339, section 2.1, for a scale per row and column; FP8 formats,
arXiv:2209.05433.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.lax import broadcast_to_rank
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

Array = TypeVar("Array", bound=Any)

#: Frames of `a_few_frames_at_a_time`: 3,520 tokens of 704 x 1280, enough for a matmul's full speed.
_FRAMES = 4

#: Largest values below this become zero; their scale is still a normal float32.
_SMALLEST = 1e-30


@dataclasses.dataclass(frozen=True)
class Format:
    """A number format of 8 bits.

    Attributes:
      dtype: Dtype of the values.
      largest: What the largest magnitude of a channel or token is scaled to.
      sums: Dtype of the sums in a matmul; None is that of the layer's output.
    """

    dtype: Any
    largest: float
    sums: DTypeLike | None


#: By the name that users give. The symmetric range of int8 needs no zero point; e4m3 has a larger
#: significand than e5m2, and no infinity. Hopper writes results of float8 matmuls in bfloat16.
FORMATS = {
    "int8": Format(jnp.int8, 127.0, jnp.int32),
    "fp8": Format(jnp.float8_e4m3fn, 448.0, None),
}


def format_of(dtype: DTypeLike) -> Format:
    """The format with values of this dtype."""
    return next(one for one in FORMATS.values() if one.dtype == jnp.dtype(dtype))


def quantize(x: Array, to: Format) -> tuple[Array, Array]:
    """Rounds an array to 8 bits, with a scale for each of its rows.

    Args:
      x: Floats `[..., in]`, of NumPy or JAX.
      to: Format of the result.

    Returns:
      Values in 8 bits, and the float32 scales `[..., 1]` that they are multiplied with. NaN and
      infinity make the scale NaN or infinite.
    """
    host_or_device: Any = np if isinstance(x, np.ndarray) else jnp
    x = x.astype(np.float32)
    largest = host_or_device.max(host_or_device.abs(x), axis=-1, keepdims=True)
    scale = host_or_device.maximum(largest, np.float32(_SMALLEST)) / np.float32(to.largest)
    x = x / scale
    if to.dtype == jnp.int8:
        x = host_or_device.round(x)
    with np.errstate(invalid="ignore"):  # NaN, of which the scale tells
        return x.astype(to.dtype), scale


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def matmul(x: jax.Array, weight: jax.Array, scale: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Multiplies tokens with a weight in 8 bits.

    The gradient is that of the same matmul in `dtype`, as if nothing were rounded; the weight and
    its scale have none.

    Args:
      x: Floats `[..., in]`.
      weight: int8 or float8 `[out, in]`.
      scale: float32 `[out]`.
      dtype: Of the sums of float8, and of the gradient.

    Returns:
      float32 `[..., out]`.
    """
    to = format_of(weight.dtype)
    values, scale_of_x = quantize(x, to)
    sums = _contract(values, weight, 1, to.sums or dtype)
    return sums.astype(jnp.float32) * scale_of_x * broadcast_to_rank(scale, x.ndim)


def _forward(
    x: jax.Array, weight: jax.Array, scale: jax.Array, dtype: DTypeLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return matmul(x, weight, scale, dtype), (weight, scale, jnp.zeros((0,), x.dtype))


def _backward(dtype: DTypeLike, saved: Any, gradient: jax.Array) -> tuple[Any, Any, Any]:
    weight, scale, like_x = saved
    scaled = gradient.astype(jnp.float32) * broadcast_to_rank(scale, gradient.ndim)
    of_x = _contract(scaled.astype(dtype), weight.astype(dtype), 0, jnp.float32)
    is_float = jnp.issubdtype(weight.dtype, jnp.floating)
    of_weight = jnp.zeros_like(weight) if is_float else np.zeros(weight.shape, jax.dtypes.float0)
    return of_x.astype(like_x.dtype), of_weight, jnp.zeros_like(scale)


matmul.defvjp(_forward, _backward)


def _contract(x: jax.Array, weight: jax.Array, axis: int, dtype: DTypeLike) -> jax.Array:
    """Sums over the last axis of `x` and an axis of the weight."""
    dimensions = (((x.ndim - 1,), (axis,)), ((), ()))
    return jax.lax.dot_general(x, weight, dimensions, preferred_element_type=jnp.dtype(dtype))


class EightBitLinear(nnx.Linear):
    """A linear layer with a weight in 8 bits in place of its kernel.

    Attributes:
      weight: int8 or float8 `[out, in]`.
      weight_scale: float32 `[out]`.
      bias: `[out]` in the dtype of the result, or None.
    """

    def __init__(self, *args: Any, to: Format, **options: Any):
        super().__init__(*args, **options)
        in_axis, out_axis = self.kernel.get_metadata()["axes"]
        values, scale = quantize(self.kernel[...].T, to)
        self.weight = nnx.Param(values, axes=(out_axis, in_axis))
        self.weight_scale = nnx.Param(scale[:, 0], axes=(out_axis,))
        del self.kernel

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Maps the last dimension from `in` to `out`."""
        assert self.dtype is not None and out_sharding is None
        y = matmul(inputs, self.weight[...], self.weight_scale[...], self.dtype)
        if self.bias is not None:
            y = y + broadcast_to_rank(self.bias[...].astype(jnp.float32), y.ndim)
        return y.astype(self.dtype)


class EightBitEmbed(nnx.Embed):
    """An embedding table in 8 bits, with a scale per row, for `table_rows`.

    Attributes:
      weight: int8 or float8 `[N, D]`.
      weight_scale: float32 `[N]`.
    """

    def __init__(self, *args: Any, to: Format, **options: Any):
        super().__init__(*args, **options)
        axes = self.embedding.get_metadata()["axes"]
        values, scale = quantize(self.embedding[...], to)
        self.weight = nnx.Param(values, axes=axes)
        self.weight_scale = nnx.Param(scale[:, 0], axes=axes[:1])
        del self.embedding


def a_few_frames_at_a_time(
    function: Callable[[jax.Array], jax.Array], x_BTPD: jax.Array
) -> jax.Array:
    """Applies a function of single tokens to some frames after the other.

    Sums in 32 bits take four times the memory of values in 8 bits: for the hidden layer of a
    feed-forward network and a video of 121 x 704 x 1280, 1.6 GB if all were there at a time.
    """
    frames_first = x_BTPD.swapaxes(0, 1)
    return jax.lax.map(function, frames_first, batch_size=_FRAMES).swapaxes(0, 1)


def table_rows(table: nnx.Embed, ids: jax.Array) -> jax.Array:
    """Rows of an embedding table.

    Args:
      table: Table `[N, D]`.
      ids: Integers, of any shape.

    Returns:
      float32, in the shape of `ids` with a last dimension D; NaN for ids that have no row.
    """
    # Explicit sharding does not infer the output sharding of a gather.
    place = jax.typeof(ids).sharding

    def rows(array: jax.Array) -> jax.Array:
        spec = PartitionSpec(*place.spec, *[None] * (array.ndim - 1))
        found = array.at[ids].get(mode="fill", out_sharding=NamedSharding(place.mesh, spec))
        return found.astype(jnp.float32)

    if isinstance(table, EightBitEmbed):
        return rows(table.weight[...]) * rows(table.weight_scale[...])[..., None]
    return rows(table.embedding[...])
