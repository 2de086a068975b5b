"""What a run would be, before a weight is read: `flashmotion train --dry-run`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import jax

from flashmotion_jax.config import TrainConfig, to_dict
from flashmotion_jax.runtime import sharding
from flashmotion_jax.training.inputs import Inputs, open_inputs
from flashmotion_jax.training.layout import (
    abstract_models,
    abstract_players,
    bytes_per_device,
    count_turns,
    turn_arguments,
)
from flashmotion_jax.training.player import group_of_path, to_arrays
from flashmotion_jax.training.stage import Stage
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.turn import make_step

GB = 1e9


def describe(config: TrainConfig) -> Iterator[str]:
    """Resolved configuration, parameters by group, memory, operations and the batch's shapes.

    The steps are compiled for the devices at hand, but nothing is read except sizes.

    Args:
      config: of the run.

    Yields:
      Lines of text.

    Raises:
      UserError: the configuration does not fit its checkpoints or its cache.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.context)
    with jax.set_mesh(mesh):
        stage = build_stage(config)
        inputs = open_inputs(config, stage)
        yield json.dumps(to_dict(config), indent=2)
        yield from _parameters(stage)
        for name, array in inputs.abstract_batch()._asdict().items():
            yield f"batch.{name}: {array.dtype} {list(array.shape)}, {array.sharding.spec}"
        for player, flops in count_turns(config).items():
            yield f"{player}: {flops / 1e12:,.3f} TFLOP each time it plays"
        yield from _memory(config, stage, inputs)


def _parameters(stage: Stage) -> Iterator[str]:
    for name, player in stage.players.items():
        sizes = {path: math.prod(a.shape) for path, a in to_arrays(player.abstract).items()}
        groups = group_of_path(player.optimizer.groups, sizes)
        for group, factor in player.optimizer.groups.items():
            count = sum(size for path, size in sizes.items() if groups[path] == group)
            rate = factor * player.optimizer.learning_rate
            what = group or ("all" if len(player.optimizer.groups) == 1 else "rest")
            yield f"{name}, {what}: {count:,} parameters trained at {rate:g}"
    for role, source in stage.frozen.items():
        yield f"{role}: {source.path}/{source.kind}, frozen, weights {source.read().key[:12]}"


def _memory(config: TrainConfig, stage: Stage, inputs: Inputs) -> Iterator[str]:
    """Bytes on one device: what stays, and what each step takes beside it."""
    trained = bytes_per_device(abstract_players(stage)) / GB
    frozen = bytes_per_device(abstract_models(config, stage, inputs)) / GB
    yield f"memory per device: {trained:.3f} GB trained with moments, {frozen:.3f} GB frozen"
    arguments = turn_arguments(config, stage, inputs)
    for turn in stage.turns:
        step = make_step(turn, stage.players[turn.player].optimizer)
        scratch = _scratch_bytes(step.lower(*arguments[turn.player])) / GB
        yield f"{turn.player}'s step: {scratch:.3f} GB beside it, as compiled for this device"


def _scratch_bytes(lowered: Any) -> int:
    return lowered.compile().memory_analysis().temp_size_in_bytes
