"""The conditions around a toy generator whose output says what it was given."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.diffusion.generate import (
    Conditions,
    KeyFrames,
    conditioned_velocity,
    frame_timesteps,
    generate_latents,
    inject_image,
    make_schedule,
)
from flashmotion_jax.diffusion.solvers import Solver
from flashmotion_jax.runtime import sharding
from helpers import tiny

SHAPE = (3, 2, 2, 48)


class ToyGenerator:
    """Velocity = latents + timestep / 1000 + text, so that each can be read off."""

    def text_context(self, text):
        return text

    def __call__(self, latents, timesteps, text, residuals=None):
        velocity = latents + timesteps[:, :, None, None, None] / 1000
        velocity += text.mean(axis=(1, 2))[:, None, None, None, None]
        return velocity if residuals is None else velocity + residuals


class ToyAdapter:
    def prepare(self, trajectory, text):
        return 10 * trajectory

    def __call__(self, prepared, latents, timesteps, scale):
        return scale * prepared


def text(value, batch=2):
    return jnp.full((batch, 4, 8), value, jnp.float32)


def test_image_is_frame_0_with_timestep_0():
    image = jnp.full((2, 1, 2, 2, 48), 7.0)
    predict = conditioned_velocity(ToyGenerator(), None, Conditions(text(0.0), None, image))
    velocity = predict(jnp.zeros((2, *SHAPE)), jnp.float32(500))
    np.testing.assert_allclose(velocity[:, 0], 7.0)
    np.testing.assert_allclose(velocity[:, 1:], 0.5)


def given(value, frame):
    """Key frames of two videos: one frame of this value; the others do not matter."""
    latents = jnp.full((2, *SHAPE), np.nan).at[:, frame].set(value)
    return KeyFrames(latents, jnp.arange(SHAPE[0]) == frame)


def test_key_frames_are_clean_with_timestep_0():
    image = jnp.full((2, 1, 2, 2, 48), 7.0)
    conditions = Conditions(text(0.0), text(0.0), image, key_frames=given(5.0, 2))
    predict = conditioned_velocity(ToyGenerator(), None, conditions)
    velocity = predict(jnp.zeros((2, *SHAPE)), jnp.float32(500))
    for frame, value in enumerate((7.0, 0.5, 5.0)):
        np.testing.assert_allclose(velocity[:, frame], value)


def test_without_an_image_all_frames_have_the_same_timestep():
    predict = conditioned_velocity(ToyGenerator(), None, Conditions(text(0.0)))
    np.testing.assert_allclose(predict(jnp.zeros((2, *SHAPE)), jnp.float32(500)), 0.5)


@pytest.mark.parametrize("batch", [1, 2])
def test_timesteps_per_frame_for_any_batch_size(batch):
    latents = jnp.zeros((batch, *SHAPE))
    timesteps = frame_timesteps(jnp.float32(250), latents, has_image=True)
    np.testing.assert_array_equal(timesteps, [[0, 250, 250]] * batch)


def test_guidance_steers_away_from_the_negative_text():
    conditions = Conditions(text(2.0), text(-1.0), guidance_scale=3.0)
    velocity = conditioned_velocity(ToyGenerator(), None, conditions)(
        jnp.zeros((2, *SHAPE)), jnp.float32(0)
    )
    np.testing.assert_allclose(velocity, -1.0 + 3.0 * (2.0 - -1.0))


def test_both_branches_of_guidance_see_the_same_trajectory():
    trajectory = tiny.normal(0, 2, *SHAPE)
    conditions = Conditions(text(1.0), text(0.0), None, trajectory, 0.5, 2.0)
    velocity = conditioned_velocity(ToyGenerator(), ToyAdapter(), conditions)(
        jnp.zeros((2, *SHAPE)), jnp.float32(0)
    )
    np.testing.assert_allclose(velocity, 2.0 + 5 * trajectory, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", ["few_step", "unipc", "euler"])
def test_result_contains_the_image_unchanged(sampler):
    image = tiny.normal(1, 2, 1, 2, 2, 48)
    dit = tiny.make_dit()
    schedule = make_schedule(SamplingConfig(sampler=sampler, solver_steps=3))
    conditions = Conditions(tiny.normal(2, 2, 16, 32), None, image)
    keys = jax.random.split(jax.random.key(0), 2)
    latents = generate_latents(dit, None, conditions, schedule, keys, shape=SHAPE)
    assert latents.shape == (2, *SHAPE) and np.isfinite(latents).all()
    np.testing.assert_array_equal(latents[:, :1], image)


@pytest.mark.parametrize("sampler", ["few_step", "unipc"])
@pytest.mark.parametrize("devices", [1, 2])
def test_result_contains_key_frames_unchanged(sampler, devices):
    image = tiny.normal(1, 2, 1, 2, 2, 48)
    with jax.set_mesh(sharding.make_mesh(data=devices)):
        dit = tiny.make_dit()
        schedule = make_schedule(SamplingConfig(sampler=sampler, solver_steps=3))
        conditions = Conditions(tiny.normal(2, 2, 16, 32), None, image, key_frames=given(0.5, 1))
        keys = jax.random.split(jax.random.key(0), 2)
        latents = generate_latents(dit, None, conditions, schedule, keys, shape=SHAPE)
    assert np.isfinite(latents).all()
    np.testing.assert_array_equal(latents[:, :1], image)
    np.testing.assert_array_equal(latents[:, 1], np.full((2, *SHAPE[1:]), 0.5))


def test_schedules_follow_the_configuration():
    np.testing.assert_allclose(
        make_schedule(SamplingConfig()).sigma, [1, 0.9375, 0.8333333, 0.625], rtol=1e-6
    )
    raw = make_schedule(SamplingConfig(warp_denoising_steps=False))
    np.testing.assert_allclose(raw.sigma, [1, 0.75, 0.5, 0.25])
    table = make_schedule(SamplingConfig(sampler="unipc", solver_steps=7, shift=3.0))
    assert isinstance(table, Solver) and len(table.timestep) == 7


def test_inject_image_changes_only_frame_0():
    latents, image = tiny.normal(0, 1, *SHAPE), tiny.normal(1, 1, 1, 2, 2, 48)
    injected = inject_image(latents, image)
    np.testing.assert_array_equal(injected[:, :1], image)
    np.testing.assert_array_equal(injected[:, 1:], latents[:, 1:])
    assert inject_image(latents, None) is latents
