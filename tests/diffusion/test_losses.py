from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.diffusion import losses
from helpers import tiny

SHAPE = (3, 4, 2, 5, 6)


def latents(count, shape=SHAPE):
    return [tiny.normal(seed, *shape) for seed in range(count)]


def compare(ours, theirs, *inputs, bound=1e-5):
    """Values and gradients with respect to every input against autograd in float64."""
    torch = pytest.importorskip("torch")
    numbers = tuple(range(len(inputs)))
    value, gradients = jax.jit(jax.value_and_grad(ours, argnums=numbers))(*inputs)
    assert value.shape == () and value.dtype == jnp.float32
    tensors = [
        torch.tensor(np.asarray(x, np.float64), dtype=torch.float64, requires_grad=True)
        for x in inputs
    ]
    expected = theirs(torch, *tensors)
    expected.backward()
    np.testing.assert_allclose(value, expected.detach(), rtol=bound, atol=bound)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        by_torch = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(
            gradient, by_torch, rtol=bound, atol=bound * np.abs(by_torch).max()
        )


@pytest.mark.parametrize("has_image", [True, False])
def test_velocity_loss_equals_pytorch(has_image):
    def theirs(torch, velocity, x0, noise):
        first = 1 if has_image else 0
        return torch.nn.functional.mse_loss(velocity[:, first:], (noise - x0)[:, first:])

    compare(lambda *x: losses.velocity_loss(*x, has_image), theirs, *latents(3))


def test_weights_multiply_the_losses_of_videos():
    velocity, x0, noise = latents(3)
    weight = jnp.arange(1.0, 1 + len(x0))
    of_one = zip(velocity[:, None], x0[:, None], noise[:, None], strict=True)
    alone = jnp.stack([losses.velocity_loss(*video, True) for video in of_one])
    expected = jnp.mean(weight * alone)
    found = losses.velocity_loss(velocity, x0, noise, True, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("has_image", [True, False])
def test_x0_loss_equals_pytorch(has_image):
    def theirs(torch, prediction, target):
        first = 1 if has_image else 0
        return torch.nn.functional.mse_loss(prediction[:, first:], target[:, first:])

    compare(lambda *x: losses.x0_loss(*x, has_image), theirs, *latents(2))


def matching_by_torch(torch, x0, real, fake, has_image):
    """As published DMD trainers write it: a mask of frames, the detached target, float64."""
    mask = torch.ones(x0.shape[1], dtype=torch.bool)
    mask[0] = not has_image
    with torch.no_grad():
        distance = (x0 - real).abs()[:, mask]
        gradient = (fake - real)[:, mask] / distance.mean(dim=(1, 2, 3, 4), keepdim=True)
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    student = x0[:, mask]
    return 0.5 * torch.nn.functional.mse_loss(student, (student - gradient).detach())


@pytest.mark.parametrize("has_image", [True, False])
def test_distribution_matching_equals_pytorch(has_image):
    compare(
        lambda *x: losses.distribution_matching_loss(*x, has_image),
        lambda torch, *x: matching_by_torch(torch, *x, has_image),
        *latents(3),
    )


@pytest.mark.parametrize("distance", [1e-3, 1e-6])
def test_distribution_matching_with_a_tiny_normalizer_equals_pytorch(distance):
    real, offset, noise = latents(3)
    # Exact in float32, so that the comparison is of the loss and not of a rounded input.
    real, offset = jnp.round(real), distance * jnp.sign(offset)
    inputs = (offset, jnp.zeros_like(real), noise)
    compare(
        lambda *x: losses.distribution_matching_loss(*x, True),
        lambda torch, *x: matching_by_torch(torch, *x, True),
        *inputs,
    )


def test_gradient_of_distribution_matching_is_equation_1_per_element():
    x0, real, fake = latents(3)
    gradient = jax.grad(losses.distribution_matching_loss)(x0, real, fake, True)
    distance = np.abs(x0 - real)[:, 1:].mean(axis=(1, 2, 3, 4), keepdims=True)
    expected = (fake - real)[:, 1:] / distance / x0[:, 1:].size
    np.testing.assert_array_equal(gradient[:, 0], 0)
    np.testing.assert_allclose(gradient[:, 1:], expected, rtol=1e-5)


def test_gradient_of_distribution_matching_is_not_rounded_to_the_latents():
    """A gradient of 1e-6 beside latents of 100 is lost in `x0 - (x0 - gradient)`."""
    x0 = jnp.full(SHAPE, 100.0)
    real = x0 + 1.0
    gradient = jax.grad(losses.distribution_matching_loss)(x0 + 0, real, real + 1.5e-5, False)
    expected = (real + 1.5e-5 - real) / x0.size
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_normalizer_excludes_frame_0():
    x0, real, fake = latents(3)
    expected = losses.distribution_matching_loss(x0, real, fake, True)
    moved = losses.distribution_matching_loss(
        x0.at[:, 0].add(50.0), real.at[:, 0].set(jnp.nan), fake.at[:, 0].set(jnp.inf), True
    )
    np.testing.assert_array_equal(moved, expected)
    assert losses.distribution_matching_loss(x0.at[:, 0].add(50.0), real, fake, False) < expected


def test_only_the_student_gets_a_gradient_of_distribution_matching():
    by_real, by_fake = jax.grad(losses.distribution_matching_loss, (1, 2))(*latents(3), True)
    assert not np.any(by_real) and not np.any(by_fake)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_gradients_become_zero(bad):
    """A wrong element of the fake score is left out; of the real score, its whole video."""
    x0, real, fake = latents(3)
    value_and_gradient = jax.value_and_grad(losses.distribution_matching_loss)
    _, healthy = value_and_gradient(x0, real, fake, True)

    value, gradient = value_and_gradient(x0, real, fake.at[1, 2, 0, 0, 0].set(bad), True)
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient, healthy.at[1, 2, 0, 0, 0].set(0.0))

    value, gradient = value_and_gradient(x0, real.at[1, 2, 0, 0, 0].set(bad), fake, True)
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient, healthy.at[1].set(0.0))


def test_zero_normalizer_gives_zero_gradient():
    x0, _, fake = latents(3)
    value, gradient = jax.value_and_grad(losses.distribution_matching_loss)(x0, x0, fake, True)
    assert value == 0 and not np.any(gradient)


LOGITS = jnp.array([-200.0, -1.5, 0.0, 0.3, 20.0, 200.0])


def test_adversarial_losses_equal_pytorch_at_any_logit():
    compare(
        losses.generator_adversarial_loss,
        lambda torch, fake: torch.nn.functional.softplus(-fake).mean(),
        LOGITS,
    )
    compare(
        losses.discriminator_loss,
        lambda torch, real, fake: (
            torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()
        ),
        LOGITS,
        LOGITS[::-1] / 3,
    )


def test_extreme_logits_have_the_gradients_of_their_limits():
    by_fake = jax.grad(losses.generator_adversarial_loss)(jnp.array([-200.0, 200.0]))
    np.testing.assert_allclose(by_fake, [-0.5, 0.0], atol=1e-30)
    value = losses.discriminator_loss(jnp.array([-200.0]), jnp.array([200.0]))
    np.testing.assert_allclose(value, 400.0, rtol=1e-6)


def test_loss_of_an_undecided_discriminator_is_two_log_two():
    value = losses.discriminator_loss(jnp.zeros(2), jnp.zeros(2))
    np.testing.assert_allclose(value, 2 * np.log(2), rtol=1e-6)


def test_approximate_gradient_penalty_equals_pytorch():
    compare(
        losses.approximate_gradient_penalty,
        lambda torch, a, b: torch.nn.functional.mse_loss(a, b),
        *latents(2, (6,)),
    )


def test_approximate_gradient_penalty_tends_to_r1():
    """On `D(x) = g . x` its mean over noise is sigma^2 |g|^2, which is R1 times sigma^2."""
    weights, noise = tiny.normal(0, 40), 0.01 * tiny.normal(1, 20_000, 40)
    x = tiny.normal(2, 20_000, 40)
    penalty = losses.approximate_gradient_penalty(x @ weights, (x + noise) @ weights)
    assert penalty / 0.01**2 == pytest.approx(float(weights @ weights), rel=0.05)


def test_dynamic_scale():
    scale = losses.dynamic_scale(jnp.int32(1000), 0.25e-3, 0.0)
    assert scale.dtype == jnp.float32 and scale == 0.25
    assert losses.dynamic_scale(0, 0.25e-3, 0.1) == np.float32(0.1)


def test_temporal_variance():
    torch = pytest.importorskip("torch")
    (video,) = latents(1)
    still = jnp.broadcast_to(video[:1, :1], video[:1].shape)
    variance = losses.temporal_variance(jnp.concatenate([video, still]))
    expected = torch.tensor(np.asarray(video)).var(dim=1, correction=0).mean(dim=(1, 2, 3))
    np.testing.assert_allclose(variance[:3], expected, rtol=1e-5)
    assert variance.shape == (4,) and variance[3] < 1e-12


LATENT_LOSSES = {
    "velocity": (losses.velocity_loss, 3),
    "x0": (losses.x0_loss, 2),
    "distribution matching": (losses.distribution_matching_loss, 3),
}


@pytest.mark.parametrize("name", LATENT_LOSSES)
def test_a_videos_loss_does_not_depend_on_its_batch(name):
    """The mean of what each video has alone, though the videos differ a hundredfold in scale."""
    loss, count = LATENT_LOSSES[name]
    scales = jnp.array([0.1, 1.0, 10.0])[:, None, None, None, None]
    inputs = [scales * x for x in latents(count)]
    together, gradient = jax.value_and_grad(loss)(*inputs, True)
    alone = [
        jax.value_and_grad(loss)(*(x[i : i + 1] for x in inputs), True) for i in range(SHAPE[0])
    ]
    np.testing.assert_allclose(together, np.mean([value for value, _ in alone]), rtol=1e-6)
    for i, (_, own) in enumerate(alone):
        np.testing.assert_allclose(3 * gradient[i], own[0], rtol=1e-5)


@pytest.mark.parametrize("name", LATENT_LOSSES)
def test_losses_are_float32_for_any_input_dtype(name):
    loss, count = LATENT_LOSSES[name]
    inputs = [x.astype(jnp.bfloat16) for x in latents(count)]
    value = loss(*inputs, True)
    assert value.dtype == jnp.float32
    exact = loss(*(x.astype(jnp.float32) for x in inputs), True)
    np.testing.assert_allclose(value, exact, rtol=1e-5)


@pytest.mark.parametrize("name", LATENT_LOSSES)
def test_image_alone_raises(name):
    loss, count = LATENT_LOSSES[name]
    inputs = latents(count, (2, 1, 2, 2, 4))
    with pytest.raises(ValueError, match="contain only the image; expected at least two"):
        loss(*inputs, True)
    assert np.isfinite(loss(*inputs, False))
