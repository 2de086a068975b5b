"""Autoencoder, before stage 1: a video VAE trained on windows of videos and of trajectory maps.

The paper uses Wan2.2's. A model family of another size needs its own: a plain variational one,
without the perceptual loss of the published VAE, whose network would have to be downloaded.

Source: Kingma and Welling, arXiv:1312.6114; Rombach et al., arXiv:2112.10752, for the weak prior.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import AutoencoderConfig, PixelStageConfig, TrainConfig
from flashmotion_jax.data.pixel_batches import PixelBatch
from flashmotion_jax.diffusion.losses import discriminator_loss, generator_adversarial_loss
from flashmotion_jax.diffusion.samplers import draw_noise
from flashmotion_jax.media.images import to_float
from flashmotion_jax.models.patch_discriminator import PatchDiscriminator
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.sharding import split_batch_like
from flashmotion_jax.training.inputs import open_videos
from flashmotion_jax.training.stage import (
    ComponentRef,
    ExportSpec,
    Stage,
    from_component,
    from_scratch,
)
from flashmotion_jax.training.train_step import Keys, LossFn, LossTerm, Metrics, Models, Update

#: Videos that the statistics of the latents are taken from.
STATISTICS_VIDEOS = 256


def build(run: TrainConfig, config: AutoencoderConfig) -> Stage:
    """Builds the stage; at the end of the run, the latents are measured for their normalization."""
    component = ComponentRef(config.autoencoder, "vae")
    initial = component.read().config

    def with_latent_statistics(vae: Any) -> Any:
        if config.decoder_only:
            return initial
        videos = open_videos(config)
        some = (videos[i].video for i in range(min(STATISTICS_VIDEOS, len(videos))))
        mean, std = latent_statistics(vae, some)
        return dataclasses.replace(initial, latents_mean=mean, latents_std=std)

    trained = {"autoencoder": from_component(run, component, config.optimizer)}
    separate = config.separate_gradients
    updates = (Update("autoencoder", autoencoder_loss(config), separate_gradients=separate),)
    if config.discriminator_optimizer is not None:
        trained["discriminator"] = from_scratch(
            run,
            lambda policy, rngs: PatchDiscriminator(config.discriminator, policy=policy, rngs=rngs),
            config.discriminator_optimizer,
        )
        updates = (Update("discriminator", adversarial_loss(config)), *updates)
    return Stage(
        trained=trained,
        frozen={},
        updates=updates,
        export=ExportSpec(
            model="autoencoder",
            kind="vae",
            config=initial,
            base=config.autoencoder,
            sampling=components.read_sampling(config.autoencoder),
            finalize_config=with_latent_statistics,
        ),
        data="pixels",
    )


def autoencoder_loss(config: AutoencoderConfig) -> LossFn:
    """Loss of "autoencoder": squared error, and if configured prior and adversarial loss."""

    def loss_fn(
        models: Models, batch: PixelBatch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        video, reconstruction, terms = _reconstruct(config, models["autoencoder"], batch, keys)
        error = reconstruction - video
        # Squared: the absolute error is minimized by the median, which ignores small objects.
        terms["pixels"] = LossTerm(jnp.mean(error**2))
        if config.adversarial_scale:
            adversarial = generator_adversarial_loss(models["discriminator"](reconstruction))
            terms["adversarial"] = LossTerm(adversarial, config.adversarial_scale)
        return terms, {"psnr": psnr(error)}

    return loss_fn


def adversarial_loss(config: AutoencoderConfig) -> LossFn:
    """Loss of "discriminator", between videos and their reconstructions."""

    def loss_fn(
        models: Models, batch: PixelBatch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        video, reconstruction, _ = _reconstruct(config, models["autoencoder"], batch, keys)
        real = models["discriminator"](video)
        fake = models["discriminator"](jax.lax.stop_gradient(reconstruction))
        accuracy = (jnp.mean(real > 0) + jnp.mean(fake < 0)) / 2
        return {"adversarial": LossTerm(discriminator_loss(real, fake))}, {"accuracy": accuracy}

    return loss_fn


def _reconstruct(
    config: AutoencoderConfig, vae: VAE, batch: PixelBatch, keys: Keys
) -> tuple[jax.Array, jax.Array, dict[str, LossTerm]]:
    """Draws windows and reconstructs them; the prior is a loss unless the encoder is frozen."""
    window_keys, latent_keys = keys.split(2)
    video = draw_windows(config, batch, window_keys)
    chunk = max(1, (config.window_frames - 1) // vae.config.temporal_factor)
    mean, log_variance = vae.moments(video, chunk=chunk)
    if config.decoder_only:
        latents = jax.lax.stop_gradient(mean)  # as `flashmotion cache` encodes them
        return video, vae.reconstruct(latents, chunk=chunk), {}
    noise = draw_noise(latent_keys.videos, (config.windows_per_video, *mean.shape[1:]))
    latents = mean + jnp.exp(0.5 * log_variance) * _merge_windows(noise)
    prior = LossTerm(kl_divergence(mean, log_variance), config.prior_scale)
    return video, vae.reconstruct(latents, chunk=chunk), {"prior": prior}


def draw_windows(config: PixelStageConfig, batch: PixelBatch, keys: Keys) -> jax.Array:
    """Draws windows of each item of a batch, of its video or of its maps.

    Returns:
      float32 `[B * config.windows_per_video, config.window_frames, H, W, 3]` in [-1, 1].
    """
    windows = [_draw_window(config, batch, part) for part in keys.split(config.windows_per_video)]
    return to_float(_merge_windows(jnp.stack(windows, axis=1)))


def psnr(error: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB of an error between images in [-1, 1]."""
    return 10 * jnp.log10(4.0 / jnp.mean(error**2))


def kl_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL divergence of a diagonal Gaussian from the unit Gaussian, averaged over dimensions."""
    return 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)


def latent_statistics(
    vae: VAE, videos: Iterable[np.ndarray]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each latent channel, before normalization.

    Args:
      vae: The autoencoder.
      videos: uint8 `[F, H, W, 3]` each.
    """
    moments = [_moments(vae, jnp.asarray(video)[None]) for video in videos]
    columns = zip(*moments, strict=True)
    means, variances, counts = (np.array(column, np.float64) for column in columns)
    # Variance within the videos and between them: the mean square minus the squared mean would
    # cancel to nothing where the mean is large.
    mean = np.average(means, axis=0, weights=counts)
    variance = np.average(variances + (means - mean) ** 2, axis=0, weights=counts)
    return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance)))


@program
def _moments(vae: VAE, video: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, variance and number of the latents of a video, by channel."""
    latents, _ = vae.moments(to_float(video))
    axes = (0, 1, 2, 3)
    return latents.mean(axes), latents.var(axes), jnp.float32(latents[..., 0].size)


def _merge_windows(x_BN: jax.Array) -> jax.Array:
    """`[B, N, ...] -> [B * N, ...]`, sharded as B is."""
    return split_batch_like(rearrange(x_BN, "b n ... -> (b n) ..."), x_BN)


def _draw_window(config: PixelStageConfig, batch: PixelBatch, keys: Keys) -> jax.Array:
    """Draws one window of each item, of its video or of its maps, at the same frames for all."""
    # [0, 1 - map_fraction) selects the video; the rest is shared equally by boxes and masks.
    draw_B = jax.vmap(jax.random.uniform)(keys.videos)[:, None, None, None, None]
    maps = jnp.where(draw_B < 1 - config.map_fraction / 2, batch.masks, batch.boxes)
    chosen = jnp.where(draw_B < 1 - config.map_fraction, batch.video, maps)
    start = jax.random.randint(keys.shared, (), 0, config.num_frames - config.window_frames + 1)
    return jax.lax.dynamic_slice_in_dim(chosen, start, config.window_frames, axis=1)
