"""Checks of arrays for NaN and infinity, where the arrays are: only answers leave the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.runtime.jit import program

#: Values that the host checks at a time, so that they stay in its cache.
_CHUNK = 2**18


def find_not_finite(arrays: Mapping[str, Any]) -> list[str]:
    """Returns the names of the arrays that hold NaN or infinity, in their order."""
    on_host = {name: array for name, array in arrays.items() if _is_on_host(array)}
    on_device = {name: array for name, array in arrays.items() if name not in on_host}
    finite = {name: _is_finite(array) for name, array in on_host.items()}
    if on_device:
        finite |= jax.device_get(_are_finite(on_device))
    return [name for name in arrays if not finite[name]]


def _is_on_host(array: Any) -> bool:
    if not isinstance(array, jax.Array):
        return True
    on_cpu = all(device.platform == "cpu" for device in array.devices())
    return on_cpu and array.is_fully_addressable


@program
def _are_finite(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.isfinite(array).all() for name, array in arrays.items()}


def _is_finite(array: Any) -> bool:
    """Like `jnp.isfinite(array).all()`, without compiling a program for each shape."""
    if isinstance(array, jax.Array):
        shards = [np.asarray(s.data) for s in array.addressable_shards if s.replica_id == 0]
        return all(map(_is_finite, shards))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return True
    if array.dtype.itemsize == 1:  # formats of 8 bits differ in what stands for NaN
        return bool(np.isfinite(array).all())
    # Values that are not finite have the exponent of infinity, the largest. As whole numbers they
    # compare ten times as fast as `np.isfinite`.
    unsigned = np.dtype(f"u{array.dtype.itemsize}")
    infinity = np.array(np.inf, array.dtype).view(unsigned)
    bits = np.ascontiguousarray(array).reshape(-1).view(unsigned)
    without_sign = unsigned.type(np.iinfo(unsigned).max >> 1)
    chunks = (bits[start : start + _CHUNK] for start in range(0, bits.size, _CHUNK))
    return all((chunk & without_sign).max() < infinity for chunk in chunks)


def require_finite(stage: str, models: str, **outputs: Any) -> None:
    """Checks the outputs of a stage, so that nothing is made of numbers that are none.

    Args:
      stage: Name of the stage.
      models: The models that computed the outputs.
      **outputs: Arrays by name; None is skipped.

    Raises:
      FloatingPointError: One holds NaN or infinity.
    """
    invalid = find_not_finite({name: value for name, value in outputs.items() if value is not None})
    if invalid:
        raise FloatingPointError(
            f"the stage {stage!r} computed NaN or infinity ({', '.join(invalid)}), so there is no "
            f"result; check the weights of {models}, lower the scales, or compute in float32"
        )
