"""Rotary position embedding over latent frames, rows and columns.

Source: Wan2.2 `wan/modules/model.py`, `rope_params` and `rope_apply`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

THETA = 10000.0


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head for time, height and width: 44, 42 and 42 of 128."""
    # Even numbers, as channels rotate in pairs; time takes the channels that are left over.
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def rope_table(grid: tuple[int, int, int], head_dim: int) -> jax.Array:
    """Rotations for the tokens of a `[T, h, w]` grid, computed in float64.

    Args:
      grid: Latent frames, token rows and token columns.
      head_dim: Width E of a head, even.

    Returns:
      complex64 `[T, P, E / 2]`, P in (h, w) order: a unit complex number per pair of channels.
    """
    angles = []  # NumPy: the angles of late frames are large, and float32 loses their fraction
    for axis, dim in enumerate(axis_dims(head_dim)):
        frequencies = THETA ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
        angle = np.arange(grid[axis])[:, None] * frequencies
        shape = [1, 1, 1, dim // 2]
        shape[axis] = grid[axis]
        angles.append(np.broadcast_to(angle.reshape(shape), (*grid, dim // 2)))
    angles_TPE = np.concatenate(angles, axis=-1).reshape(grid[0], -1, head_dim // 2)
    return jnp.asarray(np.exp(1j * angles_TPE), dtype=jnp.complex64)


def apply_rope(x_BTPAE: jax.Array, table_TPE: jax.Array) -> jax.Array:
    """Rotates the pairs of channels (2i, 2i + 1) of each head.

    Args:
      x_BTPAE: Queries or keys, any float dtype.
      table_TPE: Result of `rope_table`.

    Returns:
      float32, in the shape of `x_BTPAE`.
    """
    # Neighbors are a pair, as in Wan2.2; other models pair channel i with i + E / 2.
    pairs = x_BTPAE.astype(jnp.float32).reshape(*x_BTPAE.shape[:-1], -1, 2)
    real, imaginary = pairs[..., 0], pairs[..., 1]
    cos, sin = table_TPE.real[None, ..., None, :], table_TPE.imag[None, ..., None, :]
    turned = jnp.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)
    return turned.reshape(x_BTPAE.shape)
