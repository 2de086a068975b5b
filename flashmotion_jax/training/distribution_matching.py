"""Distribution matching distillation (DMD): a few-step student against two scores.

The student runs its sampler from noise to a drawn step, without a gradient up to it. Its result is
noised again, and the difference of what two multi-step models make of it, one of real videos and
one that follows the student's, is the gradient (equation 1). The second of the two, the fake
score, learns the student's videos by the diffusion loss (equation 2).

Networks are named by role, so that stage 2 (generators) and the DMD baseline (adapters) share this.

Sources: FlashMotion section 3.3; Yin et al., arXiv:2405.14867; Self Forcing `model/dmd.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flashmotion_jax.config import FewStepConfig, MatchingConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, velocity_to_x0
from flashmotion_jax.diffusion.generate import Conditions, conditioned_velocity, inject_image
from flashmotion_jax.diffusion.losses import (
    distribution_matching_loss,
    temporal_variance,
    x0_loss,
)
from flashmotion_jax.diffusion.samplers import (
    PredictVelocity,
    draw_noise,
    few_step_sigmas,
    sample_to_exit,
)
from flashmotion_jax.training.turn import (
    Draws,
    Losses,
    Metrics,
    Models,
    Term,
    draw_noise_level,
    for_all,
)

#: Keeps the ratio of variances finite for a batch of still videos.
SMALLEST_VARIANCE = 1e-6


class Roles(NamedTuple):
    """Which of the models plays what: `(dit, adapter)` of each, the adapter perhaps None.

    Attributes:
      student: is trained in the student's turn.
      real: score of real videos, frozen.
      fake: score of the student's videos, trained in its own turn.
    """

    student: Callable[[Models], tuple[Any, Any]]
    real: Callable[[Models], tuple[Any, Any]]
    fake: Callable[[Models], tuple[Any, Any]]


def matching_losses(
    config: MatchingConfig, roles: Roles, conditions_of: Callable[[Batch], Conditions]
) -> tuple[Losses, Losses]:
    """The losses of the student and of the fake score.

    Args:
      config: sampling steps, guidance, timesteps.
      roles: the networks.
      conditions_of: what videos are made from; models need "negative_text" beside.
    """

    def student_losses(
        models: Models, batch: Batch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        del step
        conditions = conditions_of(batch)
        for_sample, for_scores = draws.split(2)
        x0 = student_sample(roles.student(models), conditions, batch, config.student, for_sample)
        noisy, timesteps = _noised(jax.lax.stop_gradient(x0), config, for_scores)
        guided = conditions._replace(
            negative_text=for_all(models["negative_text"], batch.text),
            guidance_scale=1.0 + config.real_guidance,
        )
        real_x0 = _predict_x0(roles.real(models), guided, noisy, timesteps)
        fake_x0 = _predict_x0(roles.fake(models), conditions, noisy, timesteps)
        loss = distribution_matching_loss(x0, real_x0, fake_x0, has_image=True)
        # A student that copies frame 0 has almost none: the known way for this to fail.
        of_data = jnp.maximum(temporal_variance(batch.latents).mean(), SMALLEST_VARIANCE)
        ratio = temporal_variance(x0).mean() / of_data
        return {"matching": Term(loss)}, {"temporal_variance": ratio}

    def fake_losses(
        models: Models, batch: Batch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        del step
        conditions = conditions_of(batch)
        for_sample, for_scores = draws.split(2)
        student = jax.lax.stop_gradient(roles.student(models))
        x0 = student_sample(student, conditions, batch, config.student, for_sample)
        noisy, timesteps = _noised(x0, config, for_scores)
        prediction = _predict_x0(roles.fake(models), conditions, noisy, timesteps)
        return {"diffusion": Term(x0_loss(prediction, x0, has_image=True))}, {}

    return student_losses, fake_losses


def student_sample(
    student: tuple[Any, Any],
    conditions: Conditions,
    batch: Batch,
    config: FewStepConfig,
    draws: Draws,
) -> jax.Array:
    """Runs the few-step sampler from noise to a step drawn for the whole batch.

    Args:
      student: `(dit, adapter)`.
      conditions: what the videos are made from.
      batch: gives the shape and the first frame.
      config: the denoising steps.
      draws: of the step, the noise, and the fresh noise of each step.

    Returns:
      x_0 as predicted at the drawn step, `[B, T, h, w, C]`; its gradient goes through that
      prediction alone.
    """
    for_noise, for_steps = draws.split(2)
    sigmas = student_sigmas(config)
    x0 = sample_to_exit(
        conditioned_velocity(*jax.lax.stop_gradient(student), conditions),
        conditioned_velocity(*student, conditions),
        draw_noise(for_noise.videos, batch.latents.shape[1:]),
        sigmas,
        jax.random.randint(draws.shared, (), 0, len(sigmas)),
        for_steps.videos,
    )
    return inject_image(x0, conditions.image_latents)


def student_sigmas(config: FewStepConfig) -> jax.Array:
    """Noise levels of the student's steps, float32, falling."""
    sigmas = few_step_sigmas(config.denoising_steps, config.shift, config.warp_denoising_steps)
    return jnp.asarray(sigmas, jnp.float32)


def _noised(x0: jax.Array, config: MatchingConfig, draws: Draws) -> tuple[jax.Array, jax.Array]:
    noise, timesteps = draw_noise_level(config.timesteps, x0, draws)
    return add_noise(x0, noise, timesteps / TIMESTEP_SCALE), timesteps


def _predict_x0(
    networks: tuple[Any, Any], conditions: Conditions, noisy: jax.Array, timesteps: jax.Array
) -> jax.Array:
    predict_velocity: PredictVelocity = conditioned_velocity(*networks, conditions)
    velocity = predict_velocity(noisy, timesteps)
    return velocity_to_x0(noisy, velocity, timesteps / TIMESTEP_SCALE)
