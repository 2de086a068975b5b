"""Baseline LCM of Table 1: the adapter distilled by latent consistency, in place of stage 3.

It starts where stage 3 does; the teacher is the SlowGenerator with the SlowAdapter.

Sources: FlashMotion section 4.1; Luo et al., "Latent Consistency Models", arXiv:2310.04378.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flashmotion_jax.config import LCMConfig, TrainConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, velocity_to_x0
from flashmotion_jax.diffusion.generate import conditioned_velocity
from flashmotion_jax.diffusion.losses import x0_loss
from flashmotion_jax.diffusion.samplers import draw_noise, multi_step_sigmas
from flashmotion_jax.runtime.sharding import look_up
from flashmotion_jax.training.stage import Stage, from_component
from flashmotion_jax.training.stages.fast_adapter import export_fast_adapter, start_components
from flashmotion_jax.training.stages.slow_adapter import data_conditions
from flashmotion_jax.training.train_step import (
    Keys,
    LossFn,
    LossTerm,
    Metrics,
    Models,
    Update,
    broadcast_text,
)


def build(run: TrainConfig, config: LCMConfig) -> Stage:
    """Builds the stage."""
    slow_generator, fast_generator, adapter = start_components(config)
    return Stage(
        trained={"adapter": from_component(run, adapter, config.optimizer)},
        frozen={
            "slow_generator": slow_generator,
            "fast_generator": fast_generator,
            "slow_adapter": adapter,
        },
        updates=(Update("adapter", lcm_loss(config), config.adapter_every),),
        export=export_fast_adapter(fast_generator, adapter, config.student),
    )


def lcm_loss(config: LCMConfig) -> LossFn:
    """Loss of "adapter": consistency with its moving average, one step of the teacher further."""

    def loss_fn(
        models: Models, batch: Batch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        noise_keys, level_keys = keys.split(2)
        even = multi_step_sigmas(config.num_timesteps, config.shift, grid="diffusers")
        levels = jnp.asarray(even, jnp.float32)
        draw_level = jax.vmap(lambda key: jax.random.randint(key, (), 0, config.num_timesteps))
        index_B = draw_level(level_keys.videos)
        sigma_B, next_B = look_up(levels, index_B), look_up(levels, index_B + 1)
        noise = draw_noise(noise_keys.videos, batch.latents.shape[1:])
        noisy = add_noise(batch.latents, noise, sigma_B)

        conditions = data_conditions(batch)
        guided = conditions._replace(
            negative_text=broadcast_text(models["negative_text"], batch.text),
            guidance_scale=config.guidance_scale,
        )
        teacher = conditioned_velocity(models["slow_generator"], models["slow_adapter"], guided)
        velocity = teacher(noisy, TIMESTEP_SCALE * sigma_B)
        # One Euler step along the teacher's velocity: x_0's formula, with the difference of levels.
        closer = velocity_to_x0(noisy, velocity, sigma_B - next_B)

        def predict_x0(adapter: object, latents: jax.Array, sigma: jax.Array) -> jax.Array:
            student = conditioned_velocity(models["fast_generator"], adapter, conditions)
            return velocity_to_x0(latents, student(latents, TIMESTEP_SCALE * sigma), sigma)

        target = jax.lax.stop_gradient(predict_x0(models["adapter_ema"], closer, next_B))
        prediction = predict_x0(models["adapter"], noisy, sigma_B)
        return {"consistency": LossTerm(x0_loss(prediction, target, has_image=True))}, {}

    return loss_fn
