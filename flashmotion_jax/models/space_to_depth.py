"""Space-to-depth and depth-to-space, over time, height and width.

Source: Wan2.2 `wan/modules/vae2_2.py`, `AvgDown3D` and `DupUp3D` for the shortcuts.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange


def split_cells(x_BTHWC: jax.Array, factors: tuple[int, int, int]) -> jax.Array:
    """Splits time, height and width into cells: `[B, T, H, W, C, f, q, r]`.

    It splits one dimension at a time, because explicit sharding supports no other reshape.
    """
    f, q, r = factors
    x = rearrange(x_BTHWC, "b (t f) h w c -> b t h w c f", f=f)
    x = rearrange(x, "b t (h q) w c f -> b t h w c f q", q=q)
    return rearrange(x, "b t h (w r) c f q -> b t h w c f q r", r=r)


def join_cells(cells_BTHWCfqr: jax.Array) -> jax.Array:
    """The inverse of `split_cells`."""
    x = rearrange(cells_BTHWCfqr, "b t h w c f q r -> b t h w r c f q")
    x = rearrange(x, "b t h w r c f q -> b t h (w r) c f q")
    x = rearrange(x, "b t h w c f q -> b t (h q) w c f")
    return rearrange(x, "b t h w c f -> b (t f) h w c")


def average_down(
    x_BTHWC: jax.Array, out_channels: int, time_factor: int, space_factor: int
) -> jax.Array:
    """Space-to-depth, then the mean over groups of channels; time is padded at the start."""
    padding = [(0, 0), (-x_BTHWC.shape[1] % time_factor, 0), (0, 0), (0, 0), (0, 0)]
    cells = split_cells(jnp.pad(x_BTHWC, padding), (time_factor, space_factor, space_factor))
    folded = rearrange(cells, "b t h w c f q r -> b t h w (c f q r)")
    return rearrange(folded, "b t h w (o g) -> b t h w o g", o=out_channels).mean(axis=-1)


def duplicate_up(
    x_BTHWC: jax.Array, out_channels: int, time_factor: int, space_factor: int
) -> jax.Array:
    """Repeats channels, then depth-to-space."""
    repeats = out_channels * time_factor * space_factor**2 // x_BTHWC.shape[-1]
    cells = rearrange(
        jnp.repeat(x_BTHWC, repeats, axis=-1),
        "b t h w (c f q r) -> b t h w c f q r",
        f=time_factor,
        q=space_factor,
        r=space_factor,
    )
    return join_cells(cells)
