"""Weights in 8 bits on disk and in memory: what is in 8 bits, and rounding while weights are read.

Layers have a `weight` `[out, in]` and a `weight_scale` `[out]` in place of a `kernel` `[in, out]`
or an `embedding`.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Sharding

from flashmotion_jax.checkpoints.arrays import read_array, require_finite_arrays
from flashmotion_jax.config import ADAPTERS
from flashmotion_jax.models.eight_bits import FORMATS, Format, format_of, quantize
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.errors import UserError

DTYPES = ("float32", "bfloat16")

#: Components whose time and memory are those of large linear layers. Convolutions stay floats.
KINDS = (
    "dit",
    "text_encoder",
    *(f"adapters/{name}" for name, kind in ADAPTERS.items() if kind.copies_dit),
)

#: Names of the floats that a layer has otherwise.
_FLOATS = ("kernel", "embedding")

#: Rows of a table that are rounded together, in float32.
_ROWS = 8192

#: Compute capability of the first NVIDIA GPUs with matmuls of float8, and such TPUs.
_FP8_CAPABILITY, _FP8_TPUS = 8.9, ("TPU7x",)


def policy_of(kind: str, dtype: str | Policy) -> Policy:
    """The policy of a component: the given one, with floats where it has nothing in 8 bits.

    Args:
      kind: A kind of component.
      dtype: Policy; or dtype of weights and matmuls, which for 8 bits else compute in bfloat16.

    Raises:
      UserError: A dtype is unknown.
    """
    if isinstance(dtype, str):
        dtype = Policy(compute="bfloat16" if dtype in FORMATS else dtype, params=dtype)
    if dtype.compute not in DTYPES:
        raise UserError(f"dtype={dtype.compute!r:.80}; expected one of {', '.join(DTYPES)}")
    if dtype.params not in (*DTYPES, *FORMATS):
        raise UserError(
            f"weights={dtype.params!r:.80}; expected one of {', '.join((*FORMATS, *DTYPES))}"
        )
    return dtype if kind in KINDS else dtype.without_eight_bits


def require_matmuls(weights: str) -> None:
    """Checks that the device multiplies weights of this dtype without converting them first.

    Raises:
      UserError: It does not; the message names weights that it does multiply.
    """
    device = jax.devices()[0]
    if weights != "fp8" or device.device_kind in _FP8_TPUS:
        return
    if device.platform == "gpu" and float(device.compute_capability) >= _FP8_CAPABILITY:
        return
    raise UserError(
        f"weights in fp8 on {device.device_kind}, which has no matmul of float8; use weights in "
        "int8, which every device multiplies (--weights int8, also for a checkpoint in fp8)"
    )


def readers_as(
    wanted: Mapping[str, jax.ShapeDtypeStruct], readers: Mapping[str, Callable[[], np.ndarray]]
) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of the same weights in other dtypes: to 8 bits, from 8 bits, or between them.

    Args:
      wanted: Name -> the shape and dtype that is wanted.
      readers: Name -> function that reads the array as it is stored.

    Returns:
      Name -> function that reads it as wanted. Names that belong to none in `readers` are missing,
      and those of `readers` that belong to none in `wanted` stay.
    """
    result = dict(readers)
    for name in wanted:
        layer, _, leaf = name.rpartition(".")
        weight, scale = f"{layer}.weight", f"{layer}.weight_scale"
        floats = next((f"{layer}.{one}" for one in _FLOATS if f"{layer}.{one}" in readers), None)
        if leaf in _FLOATS and scale in readers:
            result[name] = functools.partial(_dequantize, readers[weight], readers[scale], leaf)
            del result[weight], result[scale]
        elif name == scale and (floats or scale in readers):
            to = format_of(wanted[weight].dtype)
            if floats:
                del result[floats]
                rounded = _Rounded(to, readers[floats], floats.rpartition(".")[2])
            else:
                rounded = _Rounded(to, readers[weight], read_scale=readers[scale])
            result |= {weight: rounded.read_values, scale: rounded.read_own_scale}
    return result


@dataclasses.dataclass
class _Rounded:
    """A weight that is rounded to 8 bits when its values are read, unless it is so already.

    Attributes:
      to: The format.
      read: Reads it, floats or 8 bits.
      leaf: Name of the floats.
      read_scale: Reads the scale of 8 bits.
      scale: Scale of what has been read.
    """

    to: Format
    read: Callable[[], np.ndarray]
    leaf: str = ""
    read_scale: Callable[[], np.ndarray] | None = None
    scale: np.ndarray | None = None

    def read_values(self) -> np.ndarray:
        array = self.read()
        if self.read_scale is None:
            floats = _swapped(array, self.leaf)
        else:
            self.scale = self.read_scale()
            if array.dtype == self.to.dtype:
                return array
            floats = _product(array, self.scale)
        values = np.empty(floats.shape, self.to.dtype)
        self.scale = np.empty(floats.shape[:-1], np.float32)
        for part in _parts(floats):
            values[part], scale = quantize(floats[part], self.to)
            self.scale[part] = scale[..., 0]
        return values

    def read_own_scale(self) -> np.ndarray:
        if self.scale is None:  # asked for before the values
            self.read_values()
        assert self.scale is not None
        return self.scale


def _dequantize(
    read: Callable[[], np.ndarray], read_scale: Callable[[], np.ndarray], leaf: str
) -> np.ndarray:
    return _swapped(_product(read(), read_scale()), leaf)


def _product(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    floats = np.empty(values.shape, np.float32)
    for part in _parts(values):
        np.multiply(values[part].astype(np.float32), scale[part][..., None], out=floats[part])
    return floats


def _swapped(array: np.ndarray, leaf: str) -> np.ndarray:
    """Swaps the axes of a kernel, `[in, out]`, for those of a weight in 8 bits, or back."""
    return array.swapaxes(-1, -2) if leaf == "kernel" else array


def _parts(array: np.ndarray) -> Iterator[slice]:
    """Parts that are rounded one after the other, in float32: layers of a stack, rows of others."""
    step = 1 if array.ndim > 2 else _ROWS
    yield from (slice(start, start + step) for start in range(0, len(array), step))


def read_rounded(
    folder: Path,
    names: Sequence[str],
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    places: Mapping[str, Sharding],
) -> dict[str, jax.Array]:
    """Reads all arrays of a folder in another format, through the memory of the host.

    No device holds more than it is given, and the host one array.

    Args:
      folder: Folder made by `arrays.write_arrays`.
      names: Of its arrays.
      wanted: Name -> the shape and dtype that is wanted.
      places: Name -> sharding.

    Raises:
      UserError: The folder is damaged, or holds NaN or infinity.
    """
    readers = readers_as(
        wanted, {name: functools.partial(read_array, folder, name) for name in names}
    )
    arrays: dict[str, jax.Array] = {}
    for name, array in wanted.items():
        value = np.asarray(readers[name](), array.dtype)
        part = functools.partial(operator.getitem, value)
        arrays[name] = jax.make_array_from_callback(value.shape, places[name], part)
    require_finite_arrays(folder, arrays)
    return arrays
