"""A tiny autoencoder of the latents of a frozen VAE: a distillation, from scratch.

The decoder learns pixels from the latents of the VAE's encoder, and the encoder learns these
latents from the pixels. Neither learns from the other. If both autoencoders have a linear code, the
tiny one starts with that of the VAE.

Source: TAEHV, https://github.com/madebyollin/taehv, for the models; its training is not published.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import TinyAutoencoderConfig, TrainConfig
from flashmotion_jax.config.model_set import require_same_latents
from flashmotion_jax.data.pixel_batches import PixelBatch
from flashmotion_jax.models.tiny_vae import TinyVAE
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.training.stage import (
    ComponentRef,
    ExportSpec,
    Stage,
    from_scratch,
    frozen_policy,
)
from flashmotion_jax.training.stages.autoencoder import draw_windows, psnr
from flashmotion_jax.training.train_step import Keys, LossFn, LossTerm, Metrics, Models, Update


def build(run: TrainConfig, config: TinyAutoencoderConfig) -> Stage:
    """Builds the stage.

    Raises:
      UserError: The tiny autoencoder and the VAE have latents of different shapes.
    """
    vae = ComponentRef(config.autoencoder, "vae")
    require_same_latents(vae.read().config, config.tiny_vae)
    scratch = from_scratch(
        run,
        lambda policy, rngs: TinyVAE(config.tiny_vae, policy=policy, rngs=rngs),
        config.optimizer,
    )

    def load() -> TinyVAE:
        return copy_linear_code(vae.load(frozen_policy(run)), scratch.load())

    return Stage(
        trained={"tiny_vae": dataclasses.replace(scratch, load=load)},
        frozen={"vae": vae},
        updates=(Update("tiny_vae", distillation_loss(config)),),
        export=ExportSpec(
            model="tiny_vae",
            kind="tiny_vae",
            config=config.tiny_vae,
            base=config.autoencoder,
            sampling=components.read_sampling(config.autoencoder),
        ),
        data="pixels",
    )


def copy_linear_code(vae: VAE, tiny_vae: TinyVAE) -> TinyVAE:
    """Copies a VAE's linear code, if both have one; returns the tiny VAE.

    That of the VAE is between pixels in [-1, 1] and latents x, that of the tiny VAE between the
    same pixels, or decoded ones in [0, 1], and normalized latents (x - mean) / std.
    """
    source: Any = vae.linear_code
    target: Any = tiny_vae.linear_code
    if source is None or target is None:
        return tiny_vae
    mean, std = jnp.asarray(vae.config.latents_mean), jnp.asarray(vae.config.latents_std)
    for one, other in zip(source.encoders, target.encoders, strict=True):
        other.kernel[...] = one.kernel[...] / std[None]
        other.bias[...] = (one.bias[...] - mean) / std
    for one, other in zip(source.decoders, target.decoders, strict=True):
        kernel = one.kernel[...]
        other.kernel[...] = std[:, None] * kernel / 2
        other.bias[...] = (one.bias[...] + mean @ kernel + 1) / 2
    return tiny_vae


def distillation_loss(config: TinyAutoencoderConfig) -> LossFn:
    """Squared errors of the decoder's pixels and of their edges, and of the encoder's latents."""

    def loss_fn(
        models: Models, batch: PixelBatch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        vae, tiny_vae = models["vae"], models["tiny_vae"]
        video = draw_windows(config, batch, keys)
        chunk = max(1, (config.window_frames - 1) // vae.config.temporal_factor)
        latents = jax.lax.stop_gradient(vae.encode(video, chunk))
        error = tiny_vae.reconstruct(latents, chunk) - video
        of_latents = tiny_vae.encode(video, chunk) - latents
        return {
            "pixels": LossTerm(jnp.mean(error**2)),
            "edges": LossTerm(edge_error(error), config.edge_scale),
            "latents": LossTerm(jnp.mean(of_latents**2)),
        }, {
            "psnr": psnr(error),
            "latent_error": jnp.sqrt(jnp.sum(of_latents**2) / jnp.sum(latents**2)),
        }

    return loss_fn


def edge_error(error_BFHWC: jax.Array) -> jax.Array:
    """Mean squared difference of an error between neighboring pixels, in both directions.

    It is the squared error of the gradient of an image. Errors of edges and textures count more
    than in the squared error of pixels, which smooth regions dominate.
    """
    rows, columns = (jnp.diff(error_BFHWC, axis=axis) for axis in (2, 3))
    return jnp.mean(rows**2) + jnp.mean(columns**2)
