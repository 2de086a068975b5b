"""Losses and gradients of stage 2 and baseline DMD, against PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.config import (
    DMDConfig,
    FastGeneratorConfig,
    FewStepConfig,
    MatchingConfig,
    OptimizerConfig,
)
from flashmotion_jax.diffusion.generate import Conditions
from flashmotion_jax.training.stages.distribution_matching import sample_student
from flashmotion_jax.training.stages.dmd import dmd_losses
from flashmotion_jax.training.stages.fast_generator import generator_losses
from helpers import toy

OPTIMIZERS = {
    name: OptimizerConfig(learning_rate=1e-3) for name in ("optimizer", "fake_score_optimizer")
}
CONFIG = MatchingConfig(real_guidance=6.0)
STAGE2 = generator_losses(FastGeneratorConfig(slow_generator="", matching=CONFIG, **OPTIMIZERS))
BASELINE = dmd_losses(
    DMDConfig(
        slow_generator="",
        fast_generator="",
        slow_adapter="",
        adapter="resnet",
        matching=CONFIG,
        **OPTIMIZERS,
    )
)

#: Of each stage: losses, student, and `(dit, adapter)` of student, real and fake.
STAGES = {
    "stage 2": (
        STAGE2,
        "generator",
        (("generator", None), ("slow_generator", None), ("fake_score", None)),
    ),
    "baseline": (
        BASELINE,
        "adapter",
        (
            ("fast_generator", "adapter"),
            ("slow_generator", "slow_adapter"),
            ("slow_generator", "fake_score"),
        ),
    ),
}


def draws_that_exit_at(reference, step):
    """Keys of the first seed for which the sampler exits at a step."""
    return next(d for d in map(toy.keys, range(100)) if reference.exit_of(d) == step)


class Setting:
    """A stage, its networks in both frameworks, and a batch."""

    def __init__(self, name, reference):
        (self.student_losses, self.fake_losses), self.student, self.roles = STAGES[name]
        self.models = toy.models()
        if name == "baseline":
            self.models["fake_score"] = toy.Adapter(20)
        self.batch = toy.batch()
        self.video = reference.Video(self.batch, with_trajectory=name == "baseline")
        trained = {role for pair in self.roles for role in pair if role}
        self.weights = {role: reference.weights(self.models[role]) for role in trained}

    def networks(self, index):
        return [self.weights.get(role) for role in self.roles[index]]


@pytest.fixture(params=STAGES)
def setting(request, reference):
    return Setting(request.param, reference)


def assert_none(gradient):
    for path, array in gradient.items():
        np.testing.assert_array_equal(array, 0, err_msg=path)


def noised(reference, x0, keys):
    for_noise, for_timesteps = keys.split(2)
    sigma = reference.sigmas_of(for_timesteps.videos, 5.0, 20.0, 980.0)
    return reference.add_noise(x0, reference.noise_of(for_noise.videos), sigma), sigma


@pytest.mark.parametrize("exit_step", range(4))
def test_the_students_loss_and_gradient(reference, setting, exit_step):
    keys = draws_that_exit_at(reference, exit_step)
    value, gradients, terms, metrics = toy.evaluate(
        setting.student_losses, setting.models, setting.batch, keys
    )
    assert list(terms) == ["distribution_matching"] and terms["distribution_matching"].weight == 1.0

    for_sample, for_scores = keys.split(2)
    sample = reference.student_sample(*setting.networks(0), setting.video, for_sample)
    noisy, sigma = noised(reference, sample.detach(), for_scores)
    without_text = setting.video.with_text(setting.models["negative_text"])
    with_text = reference.predict_x0(*setting.networks(1), noisy, sigma, setting.video)
    without = reference.predict_x0(*setting.networks(1), noisy, sigma, without_text)
    real = with_text + 6.0 * (with_text - without)
    fake = reference.predict_x0(*setting.networks(2), noisy, sigma, setting.video)
    x0, real, fake = sample[:, 1:], real[:, 1:], fake[:, 1:]
    direction = (fake - real) / (x0 - real).abs().mean((1, 2, 3, 4), keepdim=True)
    target = (x0 - direction).detach()
    loss = 0.5 * ((x0 - target) ** 2).mean()

    reference.compare(value, gradients[setting.student], loss, setting.weights[setting.student])
    assert_none(gradients["fake_score"])
    assert_none(gradients["slow_generator"])
    moving = sample.var(1, correction=0).mean() / setting.video.latents.var(1, correction=0).mean()
    assert metrics["temporal_variance"] == pytest.approx(moving.item(), rel=1e-5)


@pytest.mark.parametrize("exit_step", [0, 3])
def test_the_fake_scores_loss_and_gradient(reference, setting, exit_step):
    keys = draws_that_exit_at(reference, exit_step)
    value, gradients, *_ = toy.evaluate(setting.fake_losses, setting.models, setting.batch, keys)
    for_sample, for_scores = keys.split(2)
    x0 = reference.student_sample(*setting.networks(0), setting.video, for_sample).detach()
    noisy, sigma = noised(reference, x0, for_scores)
    prediction = reference.predict_x0(*setting.networks(2), noisy, sigma, setting.video)
    loss = reference.error(prediction, x0)
    reference.compare(value, gradients["fake_score"], loss, setting.weights["fake_score"])
    assert_none(gradients[setting.student])


class Still(nnx.Module):
    """A student whose videos are copies of frame 0."""

    def __init__(self, image_latents):
        self.image_latents = nnx.Param(image_latents)

    def text_context(self, text):
        return text

    def __call__(self, latents, timesteps, text, residuals=None):
        return (latents - self.image_latents[...]) / toy.level(timesteps[:, -1:])


def test_a_student_that_copies_frame_0_has_no_temporal_variance():
    @jax.jit
    def ratio(batch):
        models = toy.models() | {"generator": Still(batch.latents[:, :1])}
        return STAGE2[0](models, batch, toy.keys(), jnp.int32(0))[1]["temporal_variance"]

    assert ratio(toy.batch()) < 1e-10


@jax.jit
def sample(batch, keys):
    conditions = Conditions(batch.text, image_latents=batch.latents[:, :1])
    return sample_student((toy.DiT(1), None), conditions, batch, FewStepConfig(), keys)


def test_the_exit_step_is_drawn_per_batch_and_all_noise_per_video(reference):
    batch, keys = toy.batch(), toy.keys(3)
    whole = sample(batch, keys)
    np.testing.assert_array_equal(whole[:, 0], batch.latents[:, 0])
    index = jnp.array([2])
    alone = sample(toy.videos(index, batch), keys._replace(videos=keys.videos[index]))
    np.testing.assert_allclose(alone[0], whole[2], atol=1e-6)
    assert {reference.exit_of(toy.keys(seed)) for seed in range(20)} == {0, 1, 2, 3}


def test_stage_2_uses_only_texts_and_first_frames():
    models, batch = toy.models(), toy.batch()
    other = batch._replace(
        latents=batch.latents.at[:, 1:].multiply(3.0),
        trajectory=jnp.full_like(batch.latents, jnp.nan),
    )
    for losses in STAGE2:
        value, gradients, *_ = toy.evaluate(losses, models, batch, toy.keys())
        same, same_gradients, *_ = toy.evaluate(losses, models, other, toy.keys())
        assert value == same
        jax.tree.map(np.testing.assert_array_equal, gradients, same_gradients)
