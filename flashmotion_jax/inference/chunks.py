"""Compiled programs that encode and decode a video a few frames at a time."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from flashmotion_jax.media.images import to_float, to_uint8
from flashmotion_jax.models.streaming import Past
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.jit import program


@functools.partial(program, static_argnames=("dtype",))
def encode_chunk(
    vae: VAE, video: jax.Array, past: Past | None, dtype: str
) -> tuple[jax.Array, Past]:
    """Encodes frames uint8 `[1, F, H, W, 3]`; also returns the state for the next chunk."""
    return vae.encode_chunk(to_float(video), past, dtype)


@functools.partial(program, donate_argnames=("past",))
def decode_chunk(
    vae: VAE, latents: jax.Array, past: Past | None
) -> tuple[tuple[jax.Array, jax.Array], Past]:
    """Decodes latents `[1, T, h, w, C]`.

    Returns:
      The frames, uint8 `[1, F, H, W, 3]`, and the sum of their values before rounding, `[]`, which
      NaN does not survive; and the state for the next chunk.
    """
    pixels, past = vae.decode_chunk(latents, past)
    return (to_uint8(pixels), jnp.sum(pixels)), past
