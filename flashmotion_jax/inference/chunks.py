"""Compiled programs that encode and decode a video a few frames at a time."""

from __future__ import annotations

import functools

import jax

from flashmotion_jax.media.images import to_float, to_uint8
from flashmotion_jax.models.vae import VAE, Past
from flashmotion_jax.runtime.jit import program


@functools.partial(program, static_argnames=("dtype",))
def encode_chunk(
    vae: VAE, video: jax.Array, past: Past | None, dtype: str
) -> tuple[jax.Array, Past]:
    """Encodes frames uint8 `[1, F, H, W, 3]`; also returns the state for the next chunk."""
    return vae.encode_chunk(to_float(video), past, dtype)


@functools.partial(program, donate_argnames=("past",))
def decode_chunk(vae: VAE, latents: jax.Array, past: Past | None) -> tuple[jax.Array, Past]:
    """Decodes latents `[1, T, h, w, C]` to uint8; also returns the state for the next chunk."""
    pixels, past = vae.decode_chunk(latents, past)
    return to_uint8(pixels), past
