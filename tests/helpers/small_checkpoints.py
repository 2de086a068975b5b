"""Checkpoints of a small sharded model whose values depend on the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashmotion_jax.config import OptimizerConfig
from flashmotion_jax.runtime import sharding
from flashmotion_jax.training.abstract import with_shardings
from flashmotion_jax.training.checkpoints import Checkpoints, Snapshot
from flashmotion_jax.training.train_state import create_train_state

OPTIMIZER = OptimizerConfig(learning_rate=0.1, ema_decay=0.9)


class Net(nnx.Module):
    """A stack of three layers, sharded over "fsdp", and a bias, which is not."""

    def __init__(self, seed, width=8):
        rng = np.random.default_rng(seed)
        kernel = rng.standard_normal((3, width, 4), np.float32)
        self.kernel = nnx.Param(jnp.asarray(kernel), axes=("embed", None))
        self.bias = nnx.Param(jnp.asarray(rng.standard_normal(4, np.float32)))


def make_snapshot(step, width=8):
    """A snapshot whose values depend on `step`."""
    mesh = jax.sharding.get_mesh()
    state = jax.jit(lambda net: create_train_state(net, OPTIMIZER))(
        sharding.place(Net(step, width), mesh)
    )
    return Snapshot({"net": state}, jax.random.key(step), {"cache": "abc", "step": step})


def abstract():
    net = with_shardings(nnx.eval_shape(lambda: Net(0)))
    return {"net": jax.eval_shape(lambda net: create_train_state(net, OPTIMIZER), net)}


def values(snapshot):
    leaves = jax.tree_util.tree_leaves_with_path(
        (snapshot.states, jax.random.key_data(snapshot.key))
    )
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same(actual, expected):
    actual_values, expected_values = values(actual), values(expected)
    assert actual_values.keys() == expected_values.keys()
    for path, value in expected_values.items():
        assert actual_values[path].dtype == value.dtype
        np.testing.assert_array_equal(actual_values[path], value, err_msg=path)
    assert actual.data == expected.data


def save_all(folder, *steps, **kwargs):
    """Writes the checkpoints of `steps`, with `metrics` by step."""
    metrics = kwargs.pop("metrics", {})
    checkpoints = Checkpoints(folder, kwargs.pop("keep", 9), **kwargs)
    for step in steps:
        checkpoints.save(step, make_snapshot(step), metrics.get(step, {}))
    checkpoints.close()


def restore(folder, **kwargs):
    """Step, snapshot, messages."""
    checkpoints = Checkpoints(folder, kwargs.pop("keep", 9), **kwargs)
    messages = []
    restored = checkpoints.restore(abstract(), messages.append)
    checkpoints.close()
    return *(restored or (None, None)), messages


def steps_of(folder):
    """Steps on disk; each has its manifest, and there are no other manifests."""
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    assert sorted(int(path.stem) for path in folder.glob("*.json")) == steps
    return steps
