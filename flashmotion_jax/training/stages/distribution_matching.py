"""Distribution matching distillation (DMD), as stage 2 and baseline DMD use it.

The student samples from noise to a random one of its steps; only that step has a gradient. The
result is noised again, and the difference between two multi-step score models on it, one of real
videos and one of the student's, is the gradient (equation 1). The second, the fake score, is
trained on the student's videos by the diffusion loss (equation 2).

Sources: FlashMotion section 3.3; Yin et al., arXiv:2405.14867; Self Forcing `model/dmd.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flashmotion_jax.config import FewStepConfig, MatchingConfig, TimestepRounding
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, velocity_to_x0
from flashmotion_jax.diffusion.generate import Conditions, conditioned_velocity, inject_image
from flashmotion_jax.diffusion.losses import (
    distribution_matching_loss,
    temporal_variance,
    x0_loss,
)
from flashmotion_jax.diffusion.samplers import (
    FewStep,
    PredictVelocity,
    draw_noise,
    few_step_schedule,
    sample_to_exit,
)
from flashmotion_jax.diffusion.timesteps import round_timesteps
from flashmotion_jax.training.train_step import (
    Keys,
    LossFn,
    LossTerm,
    Metrics,
    Models,
    Update,
    broadcast_text,
    draw_noise_and_timesteps,
)

#: Expected temporal variance of the student's videos relative to the data's: a student that
#: collapses to still videos falls below.
BOUNDS: Mapping[str, tuple[float, float]] = {"temporal_variance": (0.3, 3.0)}

#: Keeps the ratio of variances finite for a batch of still videos.
MIN_VARIANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Roles:
    """The networks of each role, as `(dit, adapter)`; the adapter may be None.

    Attributes:
      student: Trained by distribution matching.
      real_score: Score model of real videos, frozen.
      fake_score: Score model of the student's videos, trained by the diffusion loss.
    """

    student: Callable[[Models], tuple[Any, Any]]
    real_score: Callable[[Models], tuple[Any, Any]]
    fake_score: Callable[[Models], tuple[Any, Any]]


def distribution_matching_updates(
    student: str, losses: tuple[LossFn, LossFn], config: MatchingConfig
) -> tuple[Update, ...]:
    """Updates of the fake score and of the student.

    The fake score comes first, so that it has seen the student's videos before it judges them.
    """
    student_loss, fake_score_loss = losses
    return (
        Update("fake_score", fake_score_loss),
        Update(student, student_loss, config.student_every, config.student_start),
    )


def distribution_matching_losses(
    config: MatchingConfig, roles: Roles, get_conditions: Callable[[Batch], Conditions]
) -> tuple[LossFn, LossFn]:
    """Losses of the student and of the fake score.

    Args:
      config: Sampling steps, guidance, timesteps.
      roles: The networks.
      get_conditions: Conditions of a batch; "negative_text" comes from the models.
    """

    def student_loss(
        models: Models, batch: Batch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        conditions = get_conditions(batch)
        sample_keys, score_keys = keys.split(2)
        x0 = sample_student(roles.student(models), conditions, batch, config.student, sample_keys)
        # The scores are functions of x0 in equation (1), not paths for its gradient.
        noisy, timesteps = _add_random_noise(jax.lax.stop_gradient(x0), config, score_keys)
        guided = conditions._replace(
            negative_text=broadcast_text(models["negative_text"], batch.text),
            # `real_guidance` is w of c + w (c - u), which is u + (1 + w) (c - u).
            guidance_scale=1.0 + config.real_guidance,
        )
        rounding = config.student.timestep_rounding
        real_x0 = _predict_x0(roles.real_score(models), guided, noisy, timesteps, rounding)
        # Without guidance: the fake score has to match the student's videos as they are.
        fake_score = roles.fake_score(models)
        fake_x0 = _predict_x0(fake_score, conditions, noisy, timesteps, rounding)
        loss = distribution_matching_loss(x0, real_x0, fake_x0, has_image=True)
        # Nearly zero when the student copies its first frame, the known way for DMD to fail.
        data_variance = jnp.maximum(temporal_variance(batch.latents).mean(), MIN_VARIANCE)
        ratio = temporal_variance(x0).mean() / data_variance
        return {"distribution_matching": LossTerm(loss)}, {"temporal_variance": ratio}

    def fake_score_loss(
        models: Models, batch: Batch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        conditions = get_conditions(batch)
        sample_keys, score_keys = keys.split(2)
        student = jax.lax.stop_gradient(roles.student(models))
        x0 = sample_student(student, conditions, batch, config.student, sample_keys)
        noisy, timesteps = _add_random_noise(x0, config, score_keys)
        fake_score, rounding = roles.fake_score(models), config.student.timestep_rounding
        prediction = _predict_x0(fake_score, conditions, noisy, timesteps, rounding)
        return {"diffusion": LossTerm(x0_loss(prediction, x0, has_image=True))}, {}

    return student_loss, fake_score_loss


def sample_student(
    student: tuple[Any, Any],
    conditions: Conditions,
    batch: Batch,
    config: FewStepConfig,
    keys: Keys,
) -> jax.Array:
    """Runs the few-step sampler from noise to a step drawn for the whole batch.

    Args:
      student: `(dit, adapter)`.
      conditions: Conditions of the videos.
      batch: Gives the shape and the first frame.
      config: The denoising steps.
      keys: For the step, the initial noise, and the noise of each step.

    Returns:
      x_0 as predicted at the drawn step, `[B, T, h, w, C]`; only that prediction has a gradient.
    """
    noise_keys, step_keys = keys.split(2)
    schedule = student_schedule(config)
    x0 = sample_to_exit(
        conditioned_velocity(*jax.lax.stop_gradient(student), conditions),
        conditioned_velocity(*student, conditions),
        draw_noise(noise_keys.videos, batch.latents.shape[1:]),
        schedule,
        # One step for the batch: a scan skips a step only where all videos skip it.
        jax.random.randint(keys.shared, (), 0, len(schedule.sigma)),
        step_keys.videos,
    )
    return inject_image(x0, conditions.image_latents)


def student_schedule(config: FewStepConfig) -> FewStep[jax.Array]:
    """The student's steps."""
    return jax.tree.map(jnp.asarray, few_step_schedule(config))


def _add_random_noise(
    x0: jax.Array, config: MatchingConfig, keys: Keys
) -> tuple[jax.Array, jax.Array]:
    noise, timesteps = draw_noise_and_timesteps(config.timesteps, x0, keys)
    return add_noise(x0, noise, timesteps / TIMESTEP_SCALE), timesteps


def _predict_x0(
    networks: tuple[Any, Any],
    conditions: Conditions,
    noisy: jax.Array,
    timesteps: jax.Array,
    rounding: TimestepRounding,
) -> jax.Array:
    """Clean latents as a score model, told rounded timesteps, predicts them."""
    predict_velocity: PredictVelocity = conditioned_velocity(*networks, conditions)
    velocity = predict_velocity(noisy, round_timesteps(timesteps, rounding))
    return velocity_to_x0(noisy, velocity, timesteps / TIMESTEP_SCALE)
