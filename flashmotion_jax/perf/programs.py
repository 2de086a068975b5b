"""The programs of a training run, ready to be compiled without arrays."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import jax

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.perf.sizes import VideoSize, planned_inputs
from flashmotion_jax.runtime.devices import GIB
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


@dataclass(frozen=True)
class PlannedProgram:
    """One program of a run.

    Attributes:
      name: What it does.
      runs: How often it runs: in a training step on average, or for a video.
      program: Program to compile.
      args: Its arguments, abstract.
      options: Its static arguments.
      flops: FLOPs of one run on all devices, recomputation included.
      model_flops: The same without recomputation.
      resident: Bytes on a device while it runs, its arguments included.
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
        """Trace it for the current mesh."""
        return self.program.lower(*self.args, **self.options)


@dataclass(frozen=True)
class OutOfMemory:
    """A program that needs more memory than a device has.

    Attributes:
      program: The program.
      needed: Bytes on a device; 0 if the error does not say.
      reason: The compiler's or the runtime's error, in short.
    """

    program: PlannedProgram
    needed: int
    reason: str

    @classmethod
    def from_message(cls, program: PlannedProgram, message: str) -> OutOfMemory:
        """Read the message of an error; the TPU compiler's says "Used 20.73G of 15.75G hbm"."""
        found = re.search(r"[Uu]sed ([\d.]+)G of ([\d.]+)G hbm", message)
        if found:
            needed = int(float(found.group(1)) * GIB)
            return cls(program, needed, f"{found.group(1)} of {found.group(2)} GiB")
        return cls(program, 0, message.splitlines()[0][:200])


def training_programs(run: TrainConfig, size: VideoSize | None) -> list[PlannedProgram]:
    """The updates of a training step, on the current mesh.

    Args:
      run: Training run whose checkpoints exist, or have been replaced by
        `sizes.with_published_sizes`.
      size: Size of its videos, see `sizes.planned_inputs`.

    Raises:
      UserError: The configuration does not fit its checkpoints, its mesh or the videos.
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
                name=f"{turn.player} update",
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
    """FLOPs of each update without recomputation, by the name of what it trains."""
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
