"""Stage 3, FastAdapter: the adapter fine-tuned on the frozen FastGenerator.

The diffusion loss keeps it on the trajectory, the adversarial loss keeps the videos sharp
(equations 3 to 7); discriminator and adapter take turns.

Source: FlashMotion section 3.4; the approximate penalties are APT's, arXiv:2501.08316.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flashmotion_jax.config import FastAdapterConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, velocity_to_x0
from flashmotion_jax.diffusion.generate import (
    Conditions,
    conditioned_velocity,
    frame_timesteps,
    inject_image,
)
from flashmotion_jax.diffusion.losses import (
    approximate_gradient_penalty,
    discriminator_loss,
    dynamic_scale,
    generator_adversarial_loss,
    x0_loss,
)
from flashmotion_jax.diffusion.samplers import draw_noise
from flashmotion_jax.runtime.sharding import look_up
from flashmotion_jax.training.distribution_matching import student_sample, student_sigmas
from flashmotion_jax.training.slow_adapter import data_conditions
from flashmotion_jax.training.turn import Draws, Losses, Metrics, Models, Term, draw_noise_level


def adapter_losses(config: FastAdapterConfig) -> Losses:
    """The losses of "adapter": equations 3, 4 and 6."""

    def losses(
        models: Models, batch: Batch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        for_fake, for_logits = draws.split(2)
        fake_x0 = _fake_videos(config, models, batch, for_fake)
        scale = dynamic_scale(step, config.diffusion_scale.slope, config.diffusion_scale.offset)
        terms = {"diffusion": Term(x0_loss(fake_x0, batch.latents, has_image=True), scale)}
        if not config.adversarial:
            return terms, {}
        noise, timesteps = draw_noise_level(config.timesteps, batch.latents, for_logits)
        logits = _logits(models, batch, fake_x0, noise, timesteps)
        terms["adversarial"] = Term(generator_adversarial_loss(logits))
        return terms, {"fake_logits": logits.mean()}

    return losses


def discriminator_losses(config: FastAdapterConfig) -> Losses:
    """The loss of "discriminator": equation 5, and the penalties that have a weight."""

    def losses(
        models: Models, batch: Batch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        del step
        for_fake, for_logits, for_penalty = draws.split(3)
        fake_x0 = jax.lax.stop_gradient(_fake_videos(config, models, batch, for_fake))
        # The same noise and timestep for both, so that they differ in nothing else.
        noise, timesteps = draw_noise_level(config.timesteps, batch.latents, for_logits)
        real = _logits(models, batch, batch.latents, noise, timesteps)
        fake = _logits(models, batch, fake_x0, noise, timesteps)
        terms = {"adversarial": Term(discriminator_loss(real, fake))}
        perturbation = config.penalty_noise * draw_noise(
            for_penalty.videos, batch.latents.shape[1:]
        )
        for name, weight, x0, logits in (
            ("real_penalty", config.real_penalty, batch.latents, real),
            ("fake_penalty", config.fake_penalty, fake_x0, fake),
        ):
            if weight:
                perturbed = _logits(models, batch, x0, noise, timesteps, perturbation)
                terms[name] = Term(approximate_gradient_penalty(logits, perturbed), weight)
        correct = (jnp.mean(real > 0) + jnp.mean(fake < 0)) / 2
        metrics = {"real_logits": real.mean(), "fake_logits": fake.mean(), "accuracy": correct}
        return terms, metrics

    return losses


def _fake_videos(
    config: FastAdapterConfig, models: Models, batch: Batch, draws: Draws
) -> jax.Array:
    """x_0 as the FastGenerator with the adapter predicts it at one of its steps."""
    conditions: Conditions = data_conditions(batch)
    student = (models["fast_generator"], models["adapter"])
    if config.fake_from == "sampler":
        return student_sample(student, conditions, batch, config.student, draws)
    for_noise, for_steps = draws.split(2)
    sigmas = student_sigmas(config.student)
    choose = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(sigmas)))
    sigma_B = look_up(sigmas, choose(for_steps.videos))
    noise = draw_noise(for_noise.videos, batch.latents.shape[1:])
    noisy = add_noise(batch.latents, noise, sigma_B)
    velocity = conditioned_velocity(*student, conditions)(noisy, TIMESTEP_SCALE * sigma_B)
    return inject_image(velocity_to_x0(noisy, velocity, sigma_B), conditions.image_latents)


def _logits(
    models: Models,
    batch: Batch,
    x0: jax.Array,
    noise: jax.Array,
    timesteps: jax.Array,
    perturbation: jax.Array | float = 0.0,
) -> jax.Array:
    """Logits of videos at a noise level, with their text, first frame and trajectory."""
    image_latents = batch.latents[:, :1]
    noisy = add_noise(x0, noise, timesteps / TIMESTEP_SCALE) + perturbation
    return models["discriminator"](
        models["slow_generator"],
        inject_image(noisy, image_latents),
        frame_timesteps(timesteps, noisy, has_image=True),
        batch.text,
        image_latents,
        batch.trajectory,
    )
