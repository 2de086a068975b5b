"""Muon: updates against optax on plain matrices, the choice of parameters, and meshes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.config import OptimizerConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime import sharding
from flashmotion_jax.training.muon import dimension_numbers
from flashmotion_jax.training.train_state import (
    apply_gradients,
    create_train_state,
    from_arrays,
    to_arrays,
)
from helpers import tiny

CONFIG = OptimizerConfig(
    kind="muon", learning_rate=1e-2, weight_decay=0.1, warmup_updates=2, clip_norm=1e9
)
LAYERS = 8


class Net(nnx.Module):
    """A stack of layers, a convolution, and vectors."""

    def __init__(self):
        build = functools.partial(layers.linear, 8, 16, ("embed", "mlp"), policy=layers.FLOAT32)
        self.stacked = layers.stack(lambda rngs: build(rngs=rngs), LAYERS, nnx.Rngs(0))
        self.conv = layers.conv2d(4, 8, 3, policy=layers.FLOAT32, rngs=nnx.Rngs(1))
        self.rows = layers.learned_rows(3, 8, nnx.Rngs(2))


def gradients(module, count=5):
    rng = np.random.default_rng(3)
    return [
        {path: jnp.asarray(rng.normal(size=a.shape), jnp.float32) for path, a in arrays.items()}
        for arrays in [to_arrays(module)] * count
    ]


def trained(config=CONFIG, mesh=(1, 1)):
    """The parameters after some updates."""
    mesh = sharding.make_mesh(*mesh)
    with jax.set_mesh(mesh):
        module = sharding.place(Net(), mesh)
        state = jax.jit(lambda module: create_train_state(module, config))(module)
        step = jax.jit(
            lambda state, gradient: apply_gradients(state, gradient, config, jnp.int32(0))
        )
        for arrays in gradients(Net()):
            state = step(state, sharding.place(from_arrays(Net(), arrays), mesh))
    return jax.tree.map(np.asarray, to_arrays(state.params))


def by_optax():
    """The same by optax's Muon, with a matrix per layer and the flattened kernel."""

    def split(arrays):
        kernels = {str(n): arrays["stacked.kernel"][n] for n in range(LAYERS)}
        flat = arrays["conv.kernel"].reshape(-1, arrays["conv.kernel"].shape[-1])
        return kernels | {"conv": flat}

    rate = optax.join_schedules(
        [optax.linear_schedule(0, 1e-2, 2), optax.constant_schedule(1e-2)], [2]
    )
    transform = optax.contrib.muon(rate, weight_decay=0.1, consistent_rms=0.2)
    params = split(to_arrays(Net()))
    state = transform.init(params)
    for arrays in gradients(Net()):
        updates, state = transform.update(split(arrays), state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("mesh", [(1, 1), (2, 1), (2, 4)])
def test_updates_of_matrices_are_those_of_optax(mesh):
    found, expected = trained(mesh=mesh), by_optax()
    for n in range(LAYERS):
        np.testing.assert_allclose(found["stacked.kernel"][n], expected[str(n)], atol=1e-5)
    kernel = found["conv.kernel"]
    np.testing.assert_allclose(kernel.reshape(-1, kernel.shape[-1]), expected["conv"], atol=1e-5)


def test_other_parameters_are_updated_by_adamw():
    transform = optax.adamw(lambda n: 1e-2 * jnp.minimum(n / 2, 1), weight_decay=0.1, nesterov=True)
    names = ("stacked.bias", "conv.bias", "rows")
    params = {name: to_arrays(Net())[name] for name in names}
    state = transform.init(params)
    for arrays in gradients(Net()):
        updates, state = transform.update({name: arrays[name] for name in names}, state, params)
        params = optax.apply_updates(params, updates)
    for name, array in trained().items():
        if name in names:
            np.testing.assert_allclose(array, params[name], atol=1e-6, err_msg=name)


def test_groups_have_their_own_learning_rates():
    config = OptimizerConfig(
        kind="muon", learning_rate=1e-2, weight_decay=0.0, groups={"": 1.0, "conv": 0.5}
    )
    half, whole = trained(config), trained(OptimizerConfig(**vars(config) | {"groups": {"": 1.0}}))
    before = to_arrays(Net())
    for name, factor in (("conv.kernel", 0.5), ("stacked.kernel", 1.0)):
        moved, expected = half[name] - before[name], factor * (whole[name] - before[name])
        np.testing.assert_allclose(moved, expected, atol=1e-6, err_msg=name)


def test_kernels_of_the_autoencoder_are_matrices_and_vectors_are_not():
    vae = nnx.eval_shape(lambda: VAE(tiny.VAE_CONFIG, rngs=nnx.Rngs(0)))
    for path, variable in flat_parameters(vae).items():
        numbers = dimension_numbers(variable)
        assert (numbers is not None) == path.endswith("kernel"), path
        if numbers is not None:
            last = variable.get_value().ndim - 1
            assert numbers == (tuple(range(last)), (last,)), path
