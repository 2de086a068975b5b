"""Convolution whose gradients are our own on a CPU: against those that XLA derives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.models import convolution as module
from flashmotion_jax.models.convolution import convolve, double_and_convolve, multiply_windows

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def values_and_gradients(convolution, kernel_shape, strides, padding):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((3, 7, 10, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal(kernel_shape), jnp.float32)

    def run(x, kernel):
        out = convolution(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)
        return (jnp.sin(out) * jnp.arange(out.size).reshape(out.shape) / out.size).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))(x, kernel)
    return [np.asarray(array) for array in (out, *gradients)]


@pytest.fixture(params=["windows", "gradients"])
def _spelling(request, monkeypatch):
    """Small images and kernels as those that windows are made of, and as they are."""
    if request.param == "windows":
        monkeypatch.setattr(module, "LARGE_KERNEL", 0)


@pytest.mark.usefixtures("_spelling")
@pytest.mark.parametrize(
    ("kernel_shape", "strides", "padding"),
    [
        ((3, 3, 4, 5), (1, 1), "SAME"),
        ((3, 3, 4, 5), (1, 1), "VALID"),
        ((3, 3, 4, 2), (2, 2), ((0, 1), (0, 1))),
        ((1, 1, 4, 6), (1, 1), "SAME"),
        ((3, 3, 4, 2), (1, 1), "SAME"),
        ((2, 3, 4, 1), (1, 1), ((0, 2), (1, 3))),
        ((3, 2, 4, 3), (1, 1), "VALID"),
        ((2, 3, 4, 4), (2, 1), ((0, 2), (1, 3))),
        ((2, 2, 4, 4), (2, 2), "VALID"),
    ],
)
def test_values_and_gradients_are_those_of_xla(kernel_shape, strides, padding):
    ours = values_and_gradients(convolve, kernel_shape, strides, padding)
    theirs = values_and_gradients(jax.lax.conv_general_dilated, kernel_shape, strides, padding)
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, other, atol=2e-5, rtol=1e-5)


def test_windows_of_videos_are_a_convolution_in_three_dimensions():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 4, 5, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 2, 3, 4)), jnp.float32)
    sides = ((1, 1), (0, 1))
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1, 1), ((0, 0), *sides), dimension_numbers=numbers
    )
    out = multiply_windows(x, kernel, sides)
    np.testing.assert_allclose(out, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.usefixtures("_spelling")
def test_gradients_stay_in_the_dtype_of_what_they_are_of():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 2, 2), jnp.bfloat16)

    def loss(x, kernel):
        out = convolve(x, kernel, (1, 1), "SAME", preferred_element_type=jnp.float32)
        assert out.dtype == jnp.float32
        return out.sum()

    of_x, of_kernel = jax.grad(loss, (0, 1))(x, kernel)
    assert (of_x.dtype, of_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16)


def test_groups_are_left_to_xla():
    x, kernel = jnp.ones((1, 4, 4, 4)), jnp.ones((3, 3, 2, 4))
    out = convolve(x, kernel, (1, 1), "VALID", feature_group_count=2)
    np.testing.assert_allclose(out, 18.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 5e-2)])
def test_doubling_and_convolving_is_four_small_convolutions(dtype, tolerance):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 5, 7, 6)), dtype)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 6, 4)) / 7, dtype)

    def plainly(x, kernel):
        doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return convolve(doubled, kernel, (1, 1), "SAME")

    def value_and_gradients(run):
        def weighted(x, kernel):
            out = run(x, kernel).astype(jnp.float32)
            return jnp.mean(jnp.sin(out) * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

        return jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(x, kernel)

    (_, expected), wanted = value_and_gradients(plainly)
    (_, out), gradients = value_and_gradients(lambda *args: double_and_convolve(*args, dtype))
    np.testing.assert_allclose(out, expected, atol=tolerance)
    for gradient, other in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(
            *(np.asarray(g, np.float32) for g in (gradient, other)), atol=tolerance
        )
