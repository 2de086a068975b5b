"""The programs of a run, ready to be compiled for devices that are not there."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.perf.sizes import VideoSize, planned_inputs
from flashmotion_jax.runtime.flops import count_flops
from flashmotion_jax.runtime.jit import Program
from flashmotion_jax.training.layout import (
    abstract_models,
    abstract_players,
    bytes_per_device,
    turn_arguments,
)
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.turn import make_step


class PlannedProgram(NamedTuple):
    """One program of a run.

    Attributes:
      name: of what it does.
      runs: in a step of training, on average, or in the making of a video.
      program: to be compiled.
      args: its arguments, abstract.
      options: its static arguments.
      flops: of one run, all devices together, with what is computed twice.
      model_flops: without it.
      resident: bytes on a device while it runs, its arguments among them.
    """

    name: str
    runs: float
    program: Program[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    flops: float
    model_flops: float
    resident: int

    def lower(self) -> jax.stages.Lowered:
        """Traces it for the mesh that is set."""
        return self.program.lower(*self.args, **self.options)


def training_programs(run: TrainConfig, size: VideoSize | None) -> list[PlannedProgram]:
    """The turns of a training step, on the mesh that is set.

    Args:
      run: whose checkpoints are there or have been replaced, see `sizes.with_sizes`.
      size: of its videos, see `sizes.planned_inputs`.

    Raises:
      UserError: the configuration does not fit its checkpoints, its mesh or the videos.
    """
    stage = build_stage(run)
    inputs = planned_inputs(run, stage, size)
    arguments = turn_arguments(run, stage, inputs)
    players, models = abstract_players(stage), abstract_models(run, stage, inputs)
    resident = bytes_per_device((players, models, inputs.abstract_batch()))
    model_flops = count_model_flops(run, size)
    programs = []
    for turn in stage.turns:
        step = make_step(turn, stage.players[turn.player].optimizer)
        given = arguments[turn.player]
        programs.append(
            PlannedProgram(
                name=f"{turn.player}'s turn",
                runs=1 / turn.every,
                program=step,
                args=given,
                options={},
                flops=count_flops(step.function, *given),
                model_flops=model_flops[turn.player],
                resident=resident,
            )
        )
    return programs


def count_model_flops(run: TrainConfig, size: VideoSize | None) -> dict[str, float]:
    """Operations of each turn as the model defines them: nothing is computed twice."""
    run = dataclasses.replace(run, remat="none")
    stage = build_stage(run)
    arguments: dict[str, Any] = turn_arguments(run, stage, planned_inputs(run, stage, size))
    return {
        turn.player: count_flops(
            make_step(turn, stage.players[turn.player].optimizer).function,
            *arguments[turn.player],
        )
        for turn in stage.turns
    }
