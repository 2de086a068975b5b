"""The few-step baselines of the paper's Table 1 that have losses of their own: DMD and LCM.

Both start where stage 3 does, from the SlowAdapter on the FastGenerator, with SlowGenerator and
SlowAdapter as the teacher. The third, GAN, is stage 3 with a scale of 0.

Sources: FlashMotion section 4.1; Luo et al., "Latent Consistency Models", arXiv:2310.04378.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flashmotion_jax.config import ConsistentAdapterConfig, MatchedAdapterConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, velocity_to_x0
from flashmotion_jax.diffusion.generate import conditioned_velocity
from flashmotion_jax.diffusion.losses import x0_loss
from flashmotion_jax.diffusion.samplers import draw_noise, multi_step_sigmas
from flashmotion_jax.runtime.sharding import look_up
from flashmotion_jax.training.distribution_matching import Roles, matching_losses
from flashmotion_jax.training.slow_adapter import data_conditions
from flashmotion_jax.training.turn import Draws, Losses, Metrics, Models, Term, for_all


def matched_adapter_losses(config: MatchedAdapterConfig) -> tuple[Losses, Losses]:
    """DMD: the losses of "adapter" and of "fake_score", an adapter on the SlowGenerator."""
    roles = Roles(
        student=lambda models: (models["fast_generator"], models["adapter"]),
        real=lambda models: (models["slow_generator"], models["slow_adapter"]),
        fake=lambda models: (models["slow_generator"], models["fake_score"]),
    )
    return matching_losses(config.matching, roles, data_conditions)


def consistent_adapter_losses(config: ConsistentAdapterConfig) -> Losses:
    """LCM: the loss of "adapter" against its moving average, one teacher's step further."""

    def losses(
        models: Models, batch: Batch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        del step
        for_noise, for_levels = draws.split(2)
        levels = jnp.asarray(multi_step_sigmas(config.num_timesteps, config.shift), jnp.float32)
        choose = jax.vmap(lambda key: jax.random.randint(key, (), 0, config.num_timesteps))
        index_B = choose(for_levels.videos)
        sigma_B, next_B = look_up(levels, index_B), look_up(levels, index_B + 1)
        noise = draw_noise(for_noise.videos, batch.latents.shape[1:])
        noisy = add_noise(batch.latents, noise, sigma_B)

        conditions = data_conditions(batch)
        guided = conditions._replace(
            negative_text=for_all(models["negative_text"], batch.text),
            guidance_scale=config.guidance_scale,
        )
        teacher = conditioned_velocity(models["slow_generator"], models["slow_adapter"], guided)
        velocity = teacher(noisy, TIMESTEP_SCALE * sigma_B)
        # One Euler step along the teacher's velocity, from level to level.
        closer = velocity_to_x0(noisy, velocity, sigma_B - next_B)

        def predict_x0(adapter: object, latents: jax.Array, sigma: jax.Array) -> jax.Array:
            student = conditioned_velocity(models["fast_generator"], adapter, conditions)
            return velocity_to_x0(latents, student(latents, TIMESTEP_SCALE * sigma), sigma)

        target = jax.lax.stop_gradient(predict_x0(models["adapter_ema"], closer, next_B))
        prediction = predict_x0(models["adapter"], noisy, sigma_B)
        return {"consistency": Term(x0_loss(prediction, target, has_image=True))}, {}

    return losses
