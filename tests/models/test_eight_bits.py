"""8-bit layers against products in NumPy's int64, ml_dtypes' float8 and torch's int8 matmul."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from flashmotion_jax.models import layers
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.eight_bits import FORMATS, matmul, quantize, table_rows
from flashmotion_jax.runtime import sharding
from helpers import tiny

TOKENS, IN, OUT = 7, 48, 32


@pytest.fixture(scope="module")
def x():
    x = np.random.default_rng(0).standard_normal((TOKENS, IN)).astype(np.float32)
    x[2] = 0  # a token of zeros
    x[3] *= 1e4
    x[4, 5] = 300  # one outlier
    return x


@pytest.fixture(scope="module")
def weight():
    weight = np.random.default_rng(1).standard_normal((OUT, IN)).astype(np.float32)
    weight[1] = 0
    weight[2] *= 1e-5
    return weight


def test_a_weight_worked_out_by_hand():
    weight = np.array([[1.0, 2.0], [-4.0, 3.0]], np.float32)
    values, scale = quantize(weight, FORMATS["int8"])
    # 1 of 2 is 63.5 of 127, which rounds to the even 64.
    assert values.dtype == np.int8
    assert values.tolist() == [[64, 127], [-127, 95]]
    np.testing.assert_allclose(scale, [[2 / 127], [4 / 127]], rtol=1e-7)


@pytest.mark.parametrize("name", FORMATS)
def test_numpy_and_jax_round_alike(name, weight):
    ours, scale = quantize(weight, FORMATS[name])
    theirs, scale_of_jax = jax.jit(lambda k: quantize(k, FORMATS[name]))(weight)
    # XLA divides by 127 as it multiplies with the reciprocal: a scale may differ in its last bit.
    np.testing.assert_allclose(scale, scale_of_jax, rtol=2e-7)
    close = ours.astype(np.float32) * scale
    np.testing.assert_allclose(np.asarray(theirs, np.float32) * scale_of_jax, close, rtol=3e-7)


def test_int8_products_are_those_of_numpy_and_torch(x, weight):
    to = FORMATS["int8"]
    values, scale = quantize(weight, to)
    of_x, scale_of_x = quantize(x, to)
    sums = of_x.astype(np.int64) @ values.astype(np.int64).T
    expected = sums * scale_of_x.astype(np.float64) * scale[:, 0].astype(np.float64)
    found = jax.jit(matmul, static_argnums=3)(x, values, scale[:, 0], jnp.float32)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6)
    try:
        import torch
    except ImportError:
        return
    padded = np.zeros((24, IN), np.int8)  # `_int_mm` requires more than 16 rows
    padded[:TOKENS] = of_x
    theirs = torch._int_mm(torch.from_numpy(padded), torch.from_numpy(values).T)[:TOKENS]
    np.testing.assert_array_equal(theirs.numpy(), sums)


def test_fp8_products_are_those_of_ml_dtypes(x, weight):
    scale = np.maximum(np.abs(weight).max(1), 1e-30) / 448
    scale_of_x = np.maximum(np.abs(x).max(1, keepdims=True), 1e-30) / 448
    values = (weight / scale[:, None]).astype(ml_dtypes.float8_e4m3fn)
    of_x = (x / scale_of_x).astype(ml_dtypes.float8_e4m3fn)
    expected = of_x.astype(np.float64) @ values.astype(np.float64).T * scale_of_x * scale
    ours, our_scale = quantize(weight, FORMATS["fp8"])
    found = jax.jit(matmul, static_argnums=3)(x, ours, our_scale[:, 0], jnp.float32)
    assert np.isfinite(values.astype(np.float32)).all()
    largest = np.abs(expected).max(1, keepdims=True)
    assert (np.abs(np.asarray(found) - expected) <= 1e-6 * largest + 1e-30).all()


@pytest.mark.parametrize(("name", "error"), [("int8", 0.012), ("fp8", 0.04)])
def test_the_error_of_a_layer(name, error):
    """Normal numbers: 8 bits lose as much of the result as their rounding is of a value."""
    rng = np.random.default_rng(2)
    x, weight = rng.standard_normal((64, 512)), rng.standard_normal((64, 512))
    values, scale = quantize(weight, FORMATS[name])
    found = matmul(jnp.asarray(x, jnp.float32), jnp.asarray(values), scale[:, 0], jnp.float32)
    exact = x @ weight.T
    assert np.linalg.norm(found - exact) / np.linalg.norm(exact) < error


@pytest.mark.parametrize("name", FORMATS)
def test_the_gradient_is_that_of_the_rounded_weight(name, x, weight):
    values, scale = quantize(weight, FORMATS[name])
    gradient = np.random.default_rng(3).standard_normal((TOKENS, OUT)).astype(np.float32)

    def loss(x):
        return jnp.sum(matmul(x, values, scale[:, 0], jnp.float32) * gradient)

    expected = gradient @ (values.astype(np.float32) * scale)
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_nan_does_not_disappear(name, weight):
    weight = weight.copy()
    weight[3, 5] = np.nan
    _, scale = quantize(weight, FORMATS[name])
    assert np.isnan(scale[3, 0]) and np.isfinite(np.delete(scale, 3)).all()


def test_a_layer_has_a_bias_and_the_dtype_of_the_policy():
    policy = layers.Policy(compute="bfloat16", params="int8")
    layer = layers.linear(IN, OUT, (None, None), policy=policy, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.ones(OUT, "bfloat16")
    out = layer(jnp.zeros((2, 3, IN)))
    assert layer.weight.dtype == jnp.int8
    assert out.dtype == jnp.bfloat16 and (out == 1).all()


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_a_table(name):
    policy = layers.Policy(compute="bfloat16", params=name)
    table = layers.embedding(5, 4, (None, None), policy=policy, rngs=nnx.Rngs(0))
    ids = jnp.asarray([[0, 4, 7]])
    found = np.asarray(table_rows(table, ids))
    scale = np.asarray(table.weight_scale[...])[:, None]
    expected = np.asarray(table.weight[...]).astype(np.float32) * scale
    assert table.weight.dtype.itemsize == 1
    np.testing.assert_array_equal(found[0, :2], expected[[0, 4]])
    assert np.isnan(found[0, 2]).all()


def test_a_dit_in_8_bits_is_the_same_on_several_devices():
    """Weights sharded over "fsdp", tokens over "context"; the output and its gradient."""
    policy = layers.Policy(params="int8")
    dit = jax.jit(lambda: DiT(tiny.DIT, policy=policy, rngs=nnx.Rngs(0)))()
    inputs = tiny.dit_inputs(batch=4, frames=5, tokens=4)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=1)
    def run(dit, latents, timesteps, text):
        return jnp.mean(dit(latents, timesteps, text) ** 2)

    expected = run(dit, *inputs)
    mesh = sharding.make_mesh(fsdp=2, context=2)
    with jax.set_mesh(mesh):
        places = NamedSharding(mesh, sharding.BATCH)
        found = run(sharding.place(dit, mesh), *jax.device_put(inputs, places))
    for one, other in zip(found, expected, strict=True):
        # Another order of sums moves a few values to the neighboring integer.
        assert np.linalg.norm(one - other) <= 1e-2 * np.linalg.norm(other)
