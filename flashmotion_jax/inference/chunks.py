"""Compiled programs that encode and decode a video a few frames at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.media.images import to_float, to_uint8
from flashmotion_jax.models.adapters.condition import sparse_condition
from flashmotion_jax.models.streaming import Past
from flashmotion_jax.models.tiny_vae import TinyVAE
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.finite import require_finite
from flashmotion_jax.runtime.jit import program


@functools.partial(program, static_argnames=("dtype",))
def encode_chunk(
    vae: VAE, video: jax.Array, past: Past | None, dtype: str
) -> tuple[jax.Array, Past]:
    """Encodes frames uint8 `[1, F, H, W, 3]`; also returns the state for the next chunk."""
    return vae.encode_chunk(to_float(video), past, dtype)


@functools.partial(program, donate_argnames=("past",))
def decode_chunk(
    vae: VAE | TinyVAE, latents: jax.Array, past: Past | None
) -> tuple[tuple[jax.Array, jax.Array], Past]:
    """Decodes latents `[1, T, h, w, C]`.

    Returns:
      The frames, uint8 `[1, F, H, W, 3]`, and the sum of their values before rounding, `[]`, which
      NaN does not survive; and the state for the next chunk.
    """
    pixels, past = vae.decode_chunk(latents, past)
    return (to_uint8(pixels), jnp.sum(pixels)), past


def run_chunks(
    code: Callable[..., tuple[Any, Past]],
    vae: VAE | TinyVAE,
    video: Any,
    num_frames: int,
    advance: Callable[[], None],
) -> Iterator[Any]:
    """Encodes or decodes one video: its first frame, then `num_frames` at a time.

    The host processes a chunk while the device computes the next one.

    Args:
      code: `encode_chunk` or `decode_chunk`.
      vae: The autoencoder.
      video: Frames or latents of one video.
      num_frames: Frames of each chunk but the first.
      advance: Called after each chunk.

    Yields:
      The result of each chunk.
    """

    def finished(chunk: Any) -> Any:
        jax.block_until_ready(chunk)
        advance()
        return chunk

    past: Past | None = None
    running: list[Any] = []
    for start in (0, *range(1, len(video), num_frames)):
        chunk = video[start : start + (num_frames if start else 1)]
        result, past = code(vae, jnp.asarray(chunk)[None], past)
        running.append(result)
        if len(running) > 1:
            yield finished(running.pop(0))
    yield finished(running.pop())


def encode_videos(
    vae: VAE, videos: np.ndarray, dtype: str, advance: Callable[[], None]
) -> jax.Array:
    """Encodes videos one after the other.

    Args:
      vae: The autoencoder.
      videos: uint8 `[B, F, H, W, 3]`.
      dtype: Of the result.
      advance: Called after each latent frame.

    Returns:
      `[B, T, h, w, C]`.
    """
    code, factor = functools.partial(encode_chunk, dtype=dtype), vae.config.temporal_factor
    chunks = (run_chunks(code, vae, video, factor, advance) for video in videos)
    return jnp.concatenate([jnp.concatenate(list(one), axis=1) for one in chunks])


def encode_maps(
    vae: VAE, maps: np.ndarray, known: np.ndarray | None, dtype: str, advance: Callable[[], None]
) -> jax.Array:
    """Encodes the maps of videos, for an adapter that knows some frames each map alone.

    Args:
      vae: The autoencoder.
      maps: uint8 `[B, F, H, W, 3]`.
      known: The latent frames of which the last map is encoded, bool `[B, T]`; None for all maps.
      dtype: Of the result.
      advance: Called after each latent frame.

    Returns:
      `[B, T, h, w, C]`; with `known` `[B, T, h, w, C + 1]`, see `sparse_condition`.
    """
    if known is None:
        return encode_videos(vae, maps, dtype, advance)
    shape = vae.config.latent_shape(*maps.shape[1:4])
    latents = jnp.zeros((len(maps), *shape), dtype)
    for video, frame in np.argwhere(known):
        one = jnp.asarray(maps[video, frame * vae.config.temporal_factor])
        encoded, _ = encode_chunk(vae, one[None, None], None, dtype)
        latents = latents.at[video, frame].set(jax.block_until_ready(encoded)[0, 0])
        advance()
    return sparse_condition(latents, jnp.asarray(known))


def decode_videos(
    vae: VAE | TinyVAE, latents: jax.Array, advance: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Decodes a batch of videos.

    Args:
      vae: The autoencoder.
      latents: `[B, T, h, w, C]`.
      advance: Called after each chunk of a video.

    Returns:
      uint8 `[B, F, H, W, 3]`.

    Raises:
      FloatingPointError: A frame has NaN or infinity.
    """
    # One video at a time: a batch would need more memory for activations than it saves.
    videos = []
    for video in latents:
        frames, sums = [], []
        for pixels, total in run_chunks(decode_chunk, vae, video, 1, advance):
            frames.append(np.asarray(pixels[0]))
            sums.append(np.asarray(total))
        require_finite("decode", "the VAE", frames=np.stack(sums))
        videos.append(np.concatenate(frames))
    return np.stack(videos)
