"""What a request shows the VAE: the image, the maps of the trajectory, and key frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.diffusion.generate import KeyFrames
from flashmotion_jax.inference.chunks import encode_maps, encode_videos
from flashmotion_jax.inference.key_frames import KeyImages
from flashmotion_jax.inference.request import Request
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.finite import require_finite


class Encoded(NamedTuple):
    """Latents of a request, see `diffusion.generate.Conditions`; None for what it does not have."""

    image: jax.Array | None
    maps: jax.Array | None
    key_frames: KeyFrames | None


def is_encoded(request: Request) -> bool:
    """Whether a request needs the VAE's encoder."""
    return request.images is not None or request.maps is not None


def num_encoded(request: Request, factor: int) -> int:
    """Number of latent frames that `encode_request` computes.

    Args:
      request: The request.
      factor: Frames per latent frame after the first.
    """
    num_videos = len(request.prompts)
    of_maps = 0 if request.maps is None else (request.num_frames - 1) // factor + 1
    count = num_videos * of_maps if request.known is None else int(request.known.sum())
    of_keys = 0 if request.keys is None else 2 * len(request.keys.frames)
    return count + num_videos * ((request.images is not None) + of_keys)


def encode_request(vae: VAE, request: Request, advance: Callable[[], None]) -> Encoded:
    """Encodes image, maps and key frames.

    Args:
      vae: The autoencoder.
      request: The request.
      advance: Called after each latent frame.

    Raises:
      FloatingPointError: Latents have NaN or infinity.
    """
    images, maps, keys = request.images, request.maps, request.keys
    num_frames = (request.num_frames - 1) // vae.config.temporal_factor + 1
    # Latents of images enter every step unchanged; those of maps only guide.
    dtype = vae.compute_dtype.name
    encoded = Encoded(
        None if images is None else encode_videos(vae, images, "float32", advance),
        None if maps is None else encode_maps(vae, maps, request.known, dtype, advance),
        None if keys is None else _encode_keys(vae, keys, num_frames, advance),
    )
    latents: dict[str, Any] = {"image": encoded.image, "maps": encoded.maps}
    if encoded.key_frames is not None:
        latents["key frames"] = encoded.key_frames.latents
    require_finite("encode", "the VAE", **latents)
    return encoded


def _encode_keys(
    vae: VAE, keys: KeyImages, num_frames: int, advance: Callable[[], None]
) -> KeyFrames:
    """Encodes each image as the second latent frame of a still video."""
    latents: dict[int, jax.Array] = {}
    for index, frame in enumerate(keys.frames):
        image = keys.images[:, index : index + 1]
        still = np.repeat(image, 1 + vae.config.temporal_factor, axis=1)
        latents[frame] = encode_videos(vae, still, "float32", advance)[:, 1]
    empty = jnp.zeros_like(latents[keys.frames[0]])
    every = [latents.get(frame, empty) for frame in range(num_frames)]
    return KeyFrames(
        jnp.stack(every, axis=1), jnp.asarray(np.isin(np.arange(num_frames), keys.frames))
    )
