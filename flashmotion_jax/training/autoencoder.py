"""Before the stages: a video autoencoder, on windows of videos and of their trajectory maps.

The paper takes Wan2.2's. A family of other sizes needs one of its own: a plain variational one,
without the perceptual and adversarial losses of the published one, whose networks would have to be
downloaded.

Source: Kingma and Welling, arXiv:1312.6114; Rombach et al., arXiv:2112.10752, for the weak prior.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from flashmotion_jax.config import AutoencoderConfig
from flashmotion_jax.data.pixel_batches import PixelBatch
from flashmotion_jax.diffusion.samplers import draw_noise
from flashmotion_jax.media.images import to_float
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.sharding import split_batch_like
from flashmotion_jax.training.turn import Draws, Losses, Metrics, Models, Term


def autoencoder_losses(config: AutoencoderConfig) -> Losses:
    """The losses of "autoencoder": pixels and, unless the encoder is frozen, the prior."""

    def losses(
        models: Models, batch: PixelBatch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        del step
        for_window, for_latents = draws.split(2)
        windows = [_window(config, batch, part) for part in for_window.split(config.windows)]
        video = to_float(_side_by_side(jnp.stack(windows, axis=1)))
        chunk = max(1, (config.window - 1) // models["autoencoder"].config.temporal_factor)
        mean, log_variance = models["autoencoder"].moments(video, chunk=chunk)
        terms = {}
        if config.decoder_only:
            latents = jax.lax.stop_gradient(mean)  # of which a cache is made
        else:
            noise = _side_by_side(draw_noise(for_latents.videos, (config.windows, *mean.shape[1:])))
            latents = mean + jnp.exp(0.5 * log_variance) * noise
            terms["prior"] = Term(divergence(mean, log_variance), config.prior_scale)
        error = models["autoencoder"].reconstruct(latents, chunk=chunk) - video
        # Squared: the absolute error is least with the median, which leaves small objects out.
        terms["pixels"] = Term(jnp.mean(error**2))
        return terms, {"psnr": psnr(error)}

    return losses


def psnr(error: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB of an error on the scale [-1, 1]."""
    return 10 * jnp.log10(4.0 / jnp.mean(error**2))


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL divergence from a unit Gaussian, the mean over latents' numbers."""
    return 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)


def _side_by_side(x_BN: jax.Array) -> jax.Array:
    """`[B, N, ...] -> [B * N, ...]`, on the devices of the B."""
    return split_batch_like(rearrange(x_BN, "b n ... -> (b n) ..."), x_BN)


def _window(config: AutoencoderConfig, batch: PixelBatch, draws: Draws) -> jax.Array:
    """Of each item a window of its video or of one of its maps, the same frames of all."""
    # The first part of [0, 1) is for videos, the rest in halves for masks and boxes.
    place_B = jax.vmap(jax.random.uniform)(draws.videos)[:, None, None, None, None]
    maps = jnp.where(place_B < 1 - config.maps / 2, batch.masks, batch.boxes)
    chosen = jnp.where(place_B < 1 - config.maps, batch.video, maps)
    start = jax.random.randint(draws.shared, (), 0, config.num_frames - config.window + 1)
    return jax.lax.dynamic_slice_in_dim(chosen, start, config.window, axis=1)


def latent_statistics(
    vae: VAE, videos: Iterable[np.ndarray]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each latent channel, before normalisation.

    Args:
      vae: the autoencoder.
      videos: uint8 `[F, H, W, 3]` each.
    """
    sums = [_moment_sums(vae, jnp.asarray(video)[None]) for video in videos]
    first, second, count = functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums)
    mean = first / count
    std = jnp.sqrt(second / count - mean**2)
    return tuple(map(float, mean)), tuple(map(float, std))


@program
def _moment_sums(vae: VAE, video: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    mean, _ = vae.moments(to_float(video))
    over = (0, 1, 2, 3)
    return mean.sum(over), (mean**2).sum(over), jnp.float32(mean[..., 0].size)


@program
def reconstruct(vae: VAE, video: jax.Array) -> jax.Array:
    """Encodes and decodes uint8 `[B, F, H, W, 3]`; float32 in [-1, 1]."""
    return vae.decode(vae.encode(to_float(video)))
