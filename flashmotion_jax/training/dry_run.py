"""What a run would be, before a weight is read: `flashmotion train --dry-run`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import jax

from flashmotion_jax.config import TrainConfig, to_dict
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.flops import count_jaxpr_flops
from flashmotion_jax.training.abstract import (
    abstract_frozen,
    abstract_states,
    abstract_step_args,
    bytes_per_device,
)
from flashmotion_jax.training.inputs import Inputs, open_inputs
from flashmotion_jax.training.stage import Stage
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.train_state import group_of_path, to_arrays
from flashmotion_jax.training.train_step import make_train_step

GB = 1e9


def describe(config: TrainConfig) -> Iterator[str]:
    """Describes a run: configuration, parameters by group, batch shapes, FLOPs and memory.

    The steps are compiled for the devices of this machine, but no weights are read.

    Args:
      config: The run.

    Yields:
      Lines of text.

    Raises:
      UserError: The configuration does not fit its checkpoints or its cache.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.context)
    with jax.set_mesh(mesh):
        stage = build_stage(config)
        inputs = open_inputs(config, stage)
        yield json.dumps(to_dict(config), indent=2)
        yield from _parameters(stage)
        for name, array in inputs.abstract_batch()._asdict().items():
            yield f"batch.{name}: {array.dtype} {list(array.shape)}, {array.sharding.spec}"
        yield from _steps(config, stage, inputs)


def _parameters(stage: Stage) -> Iterator[str]:
    for name, init in stage.trained.items():
        sizes = {path: math.prod(a.shape) for path, a in to_arrays(init.abstract).items()}
        groups = group_of_path(init.optimizer.groups, sizes)
        for group, factor in init.optimizer.groups.items():
            count = sum(size for path, size in sizes.items() if groups[path] == group)
            rate = factor * init.optimizer.learning_rate
            what = group or ("all" if len(init.optimizer.groups) == 1 else "rest")
            yield f"{name}, {what}: {count:,} parameters, learning rate {rate:g}"
    for role, ref in stage.frozen.items():
        yield f"{role}: {ref.path}/{ref.kind}, frozen, weights {ref.read().key[:12]}"


def _steps(config: TrainConfig, stage: Stage, inputs: Inputs) -> Iterator[str]:
    """Bytes on one device that stay allocated; FLOPs and temporary bytes of each update."""
    trained = bytes_per_device(abstract_states(stage)) / GB
    frozen = bytes_per_device(abstract_frozen(config, stage, inputs)) / GB
    yield f"memory per device: {trained:.3f} GB of train states, {frozen:.3f} GB of frozen models"
    args = abstract_step_args(config, stage, inputs)
    for update in stage.updates:
        step = make_train_step(update, stage.trained[update.model].optimizer)
        traced = step.trace(*args[update.model])
        tflop = count_jaxpr_flops(traced.jaxpr, recomputed=False) / 1e12
        memory = _temporary_bytes(traced.lower()) / GB
        yield (
            f"update of {update.model}: {tflop:,.3f} TFLOP, and {memory:.3f} GB of temporary "
            "memory per device as compiled here"
        )


def _temporary_bytes(lowered: Any) -> int:
    return lowered.compile().memory_analysis().temp_size_in_bytes
