"""Before the stages, SlowGenerator: a multi-step generator by the flow-matching loss.

The paper starts from Wan2.2; a family of other sizes, or other data, needs a generator of its own.

Source: Wan, arXiv:2503.20314, for the training of its generator by rectified flow.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from flashmotion_jax.config import SlowAdapterConfig, SlowGeneratorConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise
from flashmotion_jax.diffusion.generate import Conditions, conditioned_velocity
from flashmotion_jax.diffusion.losses import velocity_loss
from flashmotion_jax.training.turn import Draws, Losses, Metrics, Models, Term, draw_noise_level


def generator_losses(config: SlowGeneratorConfig) -> Losses:
    """The loss of "generator"; "empty_text" stands for no prompt."""

    def losses(
        models: Models, batch: Batch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        del step
        conditions = Conditions(text=batch.text, image_latents=batch.latents[:, :1])
        networks = (models["generator"], None)
        loss = flow_matching_loss(config, networks, conditions, models["empty_text"], batch, draws)
        return {"diffusion": Term(loss)}, {}

    return losses


def flow_matching_loss(
    config: SlowGeneratorConfig | SlowAdapterConfig,
    networks: tuple[Any, Any],
    conditions: Conditions,
    empty_text: jax.Array,
    batch: Batch,
    draws: Draws,
) -> jax.Array:
    """Equation (8) of `diffusion.losses` at a drawn timestep.

    Args:
      config: gives timesteps and text dropout.
      networks: `(dit, adapter)`, the adapter perhaps None.
      conditions: of the batch's videos.
      empty_text: `[S, D]`, in place of a text that is dropped.
      batch: the videos.
      draws: of noise, timestep and dropout.

    Returns:
      float32 scalar.
    """
    for_level, for_dropout = draws.split(2)
    noise, timesteps = draw_noise_level(config.timesteps, batch.latents, for_level)
    text = drop_text(conditions.text, empty_text, for_dropout.videos, config.text_dropout)
    predict_velocity = conditioned_velocity(*networks, conditions._replace(text=text))
    noisy = add_noise(batch.latents, noise, timesteps / TIMESTEP_SCALE)
    velocity = predict_velocity(noisy, timesteps)
    return velocity_loss(velocity, batch.latents, noise, has_image=True)


def drop_text(
    text_BSD: jax.Array, empty_SD: jax.Array, keys_B: jax.Array, probability: float
) -> jax.Array:
    """Replaces the text of some videos by that of an empty prompt, so that guidance works."""
    dropped_B = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys_B)
    return jnp.where(dropped_B[:, None, None], empty_SD, text_BSD)
