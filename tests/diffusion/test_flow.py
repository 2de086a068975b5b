from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.diffusion import flow

SHAPE = (2, 3, 4, 5, 6)


def latents_and_noise():
    return (jax.random.normal(key, SHAPE) for key in jax.random.split(jax.random.key(0)))


def test_add_noise_goes_from_data_to_noise():
    x0, noise = latents_and_noise()
    np.testing.assert_array_equal(flow.add_noise(x0, noise, 0.0), x0)
    np.testing.assert_array_equal(flow.add_noise(x0, noise, 1.0), noise)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_sigma_per_video_or_per_frame(shape):
    x0, noise = latents_and_noise()
    sigma = jax.random.uniform(jax.random.key(1), shape)
    noisy = flow.add_noise(x0, noise, sigma)
    per_frame = np.broadcast_to(np.reshape(sigma, shape + (1,) * (2 - len(shape))), (2, 3))
    for video, frame in np.ndindex(2, 3):
        s = per_frame[video, frame]
        expected = (1 - s) * x0[video, frame] + s * noise[video, frame]
        np.testing.assert_allclose(noisy[video, frame], expected, atol=1e-6)


def test_velocity_is_the_derivative_along_the_path():
    x0, noise = latents_and_noise()
    path = lambda sigma: flow.add_noise(x0, noise, sigma)  # noqa: E731
    _, derivative = jax.jvp(path, (jnp.float32(0.3),), (jnp.float32(1.0),))
    np.testing.assert_allclose(flow.velocity_target(x0, noise), derivative, atol=1e-6)


def test_true_velocity_recovers_the_data():
    x0, noise = latents_and_noise()
    sigma = jnp.array([[0.0, 0.2, 0.7], [1.0, 0.5, 0.9]])
    noisy = flow.add_noise(x0, noise, sigma)
    x0_again = flow.velocity_to_x0(noisy, flow.velocity_target(x0, noise), sigma)
    np.testing.assert_allclose(x0_again, x0, atol=1e-6)


def test_results_are_float32_for_bfloat16_predictions():
    x0, noise = latents_and_noise()
    assert flow.velocity_to_x0(noise, x0.astype(jnp.bfloat16), 0.5).dtype == jnp.float32
    assert flow.add_noise(x0.astype(jnp.bfloat16), noise, jnp.float32(0.5)).dtype == jnp.float32


def test_shift_keeps_0_and_1():
    sigmas = np.array([1.0, 0.75, 0.5, 0.25, 0.0])
    expected = [1.0, 15 / 16, 5 / 6, 5 / 8, 0.0]
    np.testing.assert_allclose(flow.shift_sigmas(sigmas, 5.0), expected, rtol=1e-15)
    np.testing.assert_array_equal(flow.shift_sigmas(sigmas, 1.0), sigmas)
    assert flow.shift_sigmas(jnp.float32(sigmas), 5.0).dtype == jnp.float32


def test_add_noise_equals_diffusers():
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    timesteps = scheduler.timesteps[[100, 700]]
    x0, noise = (np.asarray(array) for array in latents_and_noise())
    expected = scheduler.scale_noise(torch.tensor(x0), timesteps, torch.tensor(noise))
    noisy = flow.add_noise(x0, noise, timesteps.numpy() / flow.TIMESTEP_SCALE)
    np.testing.assert_allclose(noisy, expected.numpy(), atol=1e-6)
