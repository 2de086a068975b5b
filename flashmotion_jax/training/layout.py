"""A run without its arrays: shapes, places and operations, before anything is read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.runtime.flops import count_flops
from flashmotion_jax.runtime.sharding import shardings
from flashmotion_jax.training.inputs import Shapes, open_inputs
from flashmotion_jax.training.player import Player, new_player
from flashmotion_jax.training.stage import Stage, frozen_policy
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.turn import make_step


def on_mesh(module: Any) -> Any:
    """An abstract module with each parameter's place on the mesh that is set."""
    return jax.tree.map(
        lambda array, place: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place),
        module,
        shardings(module, jax.sharding.get_mesh()),
    )


def abstract_players(stage: Stage) -> dict[str, Player]:
    """All players with shapes, dtypes and places in place of arrays."""
    return {
        name: jax.eval_shape(
            lambda module, optimizer=player.optimizer: new_player(module, optimizer),
            on_mesh(player.abstract),
        )
        for name, player in stage.players.items()
    }


def abstract_models(config: TrainConfig, stage: Stage, inputs: Shapes) -> dict[str, Any]:
    """All that stands still, likewise."""
    policy = frozen_policy(config)
    models = {role: on_mesh(source.abstract(policy)) for role, source in stage.frozen.items()}
    return models | jax.eval_shape(inputs.constants)


def turn_arguments(config: TrainConfig, stage: Stage, inputs: Shapes) -> dict[str, tuple[Any, ...]]:
    """Abstract arguments of each player's step."""
    players = abstract_players(stage)
    models = abstract_models(config, stage, inputs)
    batch = inputs.abstract_batch()
    key, step = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))
    return {
        name: (
            player,
            models | {other: p.params for other, p in players.items() if other != name},
            batch,
            key,
            step,
        )
        for name, player in players.items()
    }


def count_turns(config: TrainConfig) -> dict[str, float]:
    """Operations of each player's step, without what rematerialisation computes twice."""
    config = dataclasses.replace(config, remat="none")
    stage = build_stage(config)
    arguments = turn_arguments(config, stage, open_inputs(config, stage))
    return {
        turn.player: count_flops(
            make_step(turn, stage.players[turn.player].optimizer).function,
            *arguments[turn.player],
        )
        for turn in stage.turns
    }


def bytes_per_device(tree: Any) -> int:
    """Bytes of a tree of arrays, abstract or not, on one device of the mesh that is set."""
    mesh = jax.sharding.get_mesh()

    def size(array: Any) -> int:
        spec = array.sharding.spec if array.sharding else PartitionSpec()
        shape = NamedSharding(mesh, spec).shard_shape(array.shape)
        return math.prod(shape) * array.dtype.itemsize

    return sum(size(array) for array in jax.tree.leaves(tree) if hasattr(array, "dtype"))
