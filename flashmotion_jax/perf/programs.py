"""The programs of a training run, ready to be compiled without arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.perf.sizes import VideoSize, planned_inputs
from flashmotion_jax.runtime.devices import GIB
from flashmotion_jax.runtime.flops import count_jaxpr_flops
from flashmotion_jax.runtime.jit import Program
from flashmotion_jax.training.abstract import (
    abstract_frozen,
    abstract_states,
    abstract_step_args,
    bytes_per_device,
)
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.train_step import make_train_step


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
        """Traces it for the current mesh."""
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
        """Reads the message of an error; the TPU compiler's says "Used 20.73G of 15.75G hbm"."""
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
    all_args = abstract_step_args(run, stage, inputs)
    states, frozen = abstract_states(stage), abstract_frozen(run, stage, inputs)
    resident = bytes_per_device((states, frozen, inputs.abstract_batch()))
    programs = []
    for update in stage.updates:
        step = make_train_step(update, stage.trained[update.model].optimizer)
        args = all_args[update.model]
        jaxpr = step.trace(*args).jaxpr
        programs.append(
            PlannedProgram(
                name=f"{update.model} update",
                runs=1 / update.every,
                program=step,
                args=args,
                options={},
                flops=count_jaxpr_flops(jaxpr),
                model_flops=count_jaxpr_flops(jaxpr, recomputed=False),
                resident=resident,
            )
        )
    return programs
