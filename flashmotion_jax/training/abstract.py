"""A run without its arrays: shapes, shardings and bytes, before any weight is read."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.runtime.sharding import sharding_of, shardings
from flashmotion_jax.training.inputs import AbstractInputs
from flashmotion_jax.training.stage import Stage, frozen_policy
from flashmotion_jax.training.train_state import TrainState, create_train_state


def with_shardings(module: Any) -> Any:
    """Adds the sharding of each parameter on the current mesh to an abstract module."""
    return jax.tree.map(
        lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        module,
        shardings(module, jax.sharding.get_mesh()),
    )


def abstract_states(stage: Stage) -> dict[str, TrainState]:
    """Train states with shapes, dtypes and shardings in place of arrays, by model."""
    return {
        name: jax.eval_shape(
            lambda module, optimizer=init.optimizer: create_train_state(module, optimizer),
            with_shardings(init.abstract),
        )
        for name, init in stage.trained.items()
    }


def abstract_frozen(config: TrainConfig, stage: Stage, inputs: AbstractInputs) -> dict[str, Any]:
    """Frozen models and constants likewise, by role."""
    policy = frozen_policy(config)
    frozen = {role: with_shardings(ref.abstract(policy)) for role, ref in stage.frozen.items()}
    return frozen | jax.eval_shape(inputs.constants)


def abstract_step_args(
    config: TrainConfig, stage: Stage, inputs: AbstractInputs
) -> dict[str, tuple[Any, ...]]:
    """Abstract arguments of each trained model's step, see `train_step.TrainStep`."""
    states = abstract_states(stage)
    frozen = abstract_frozen(config, stage, inputs)
    batch = inputs.abstract_batch()
    key, step = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))
    return {
        name: (
            state,
            frozen | {other: s.params for other, s in states.items() if other != name},
            batch,
            key,
            step,
        )
        for name, state in states.items()
    }


def bytes_per_device(tree: Any) -> int:
    """Bytes of a tree of arrays, abstract or not, on one device of the current mesh."""

    def size(array: Any) -> int:
        shape = sharding_of(array).shard_shape(array.shape)
        return math.prod(shape) * array.dtype.itemsize

    return sum(size(array) for array in jax.tree.leaves(tree) if hasattr(array, "dtype"))
