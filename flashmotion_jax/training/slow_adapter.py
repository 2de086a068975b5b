"""Stage 1, SlowAdapter: an adapter on the frozen generator, by the flow-matching loss.

Source: FlashMotion section 3.2; timesteps and text dropout as Wan2.2 is trained.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flashmotion_jax.config import SlowAdapterConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise
from flashmotion_jax.diffusion.generate import Conditions, conditioned_velocity
from flashmotion_jax.diffusion.losses import velocity_loss
from flashmotion_jax.training.turn import Draws, Losses, Metrics, Models, Term, draw_noise_level


def adapter_losses(config: SlowAdapterConfig) -> Losses:
    """The loss of "adapter", on the frozen "slow_generator"; "empty_text" stands for no prompt."""

    def losses(
        models: Models, batch: Batch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        del step
        for_level, for_dropout = draws.split(2)
        noise, timesteps = draw_noise_level(config.timesteps, batch.latents, for_level)
        text = drop_text(batch.text, models["empty_text"], for_dropout.videos, config.text_dropout)
        predict_velocity = conditioned_velocity(
            models["slow_generator"], models["adapter"], data_conditions(batch)._replace(text=text)
        )
        noisy = add_noise(batch.latents, noise, timesteps / TIMESTEP_SCALE)
        velocity = predict_velocity(noisy, timesteps)
        loss = velocity_loss(velocity, batch.latents, noise, has_image=True)
        return {"diffusion": Term(loss)}, {}

    return losses


def data_conditions(batch: Batch) -> Conditions:
    """A batch's own text, first frame and trajectory."""
    return Conditions(
        text=batch.text,
        image_latents=batch.latents[:, :1],
        trajectory_latents=batch.trajectory,
    )


def drop_text(
    text_BSD: jax.Array, empty_SD: jax.Array, keys_B: jax.Array, probability: float
) -> jax.Array:
    """Replaces the text of some videos by that of an empty prompt, so that guidance works."""
    dropped_B = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys_B)
    return jnp.where(dropped_B[:, None, None], empty_SD, text_BSD)
