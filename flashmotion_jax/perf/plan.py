"""A plan: all programs of a run compiled for a topology, whether they fit, and what would."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from flashmotion_jax.config import TrainConfig, to_dict, with_overrides
from flashmotion_jax.perf.compiled import Compiled, TooLarge, compile_program
from flashmotion_jax.perf.programs import PlannedProgram, training_programs
from flashmotion_jax.perf.sampling import open_sizes, sampling_programs
from flashmotion_jax.perf.sizes import VideoSize, with_sizes
from flashmotion_jax.perf.topology import Topology, without_cudnn
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.devices import GIB
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import compiling_for

Progress = Callable[[str], None]

#: Changes that are compiled in search of one that fits.
MAX_TRIALS = 4


class Plan(NamedTuple):
    """What came of compiling a run.

    Attributes:
      settings: what was planned, as JSON values.
      topology: for which.
      mesh: its axes' sizes by name.
      videos: of a step, or that are made.
      published: checkpoints that are not there: their sizes are those of Wan2.2-TI2V-5B.
      programs: in the order in which they run.
    """

    settings: dict[str, Any]
    topology: Topology
    mesh: dict[str, int]
    videos: int
    published: list[str]
    programs: list[Compiled | TooLarge]

    @property
    def compiled(self) -> list[Compiled]:
        """The programs that compiled."""
        return [one for one in self.programs if isinstance(one, Compiled)]

    @property
    def faults(self) -> list[str]:
        """Why it does not fit; nothing if it does."""
        memory = self.topology.kind.memory
        faults = [
            f"{one.program.name} needs {one.reason}"
            for one in self.programs
            if isinstance(one, TooLarge)
        ]
        return faults + [
            f"{one.program.name} needs {one.memory.needed / GIB:.1f} of {memory / GIB:.1f} GiB"
            for one in self.compiled
            if one.memory.needed > memory
        ]

    @property
    def seconds(self) -> float:
        """Roofline of a step of training, or of a video."""
        return sum(one.program.runs * one.seconds.overlapped for one in self.compiled)


def plan_training(
    run: TrainConfig, topology: Topology, size: VideoSize | None, progress: Progress
) -> Plan:
    """Compiles all turns of a run.

    Args:
      run: to plan; checkpoints that are not there get the published sizes.
      topology: that its mesh fills.
      size: of its videos, see `sizes.planned_inputs`.
      progress: hears what is being compiled.

    Raises:
      UserError: the mesh does not fill the topology, or the configuration does not fit.
    """
    axes = dataclasses.asdict(run.mesh)
    _require_filled(run, topology)
    mesh = sharding.make_mesh(**axes, devices=topology.devices)
    with (
        compiling_for(topology.kind.platform),
        without_cudnn(),
        with_sizes(run) as (sized, published),
        jax.set_mesh(mesh),
    ):
        programs = _compile(training_programs(sized, size), topology, progress)
    return Plan(to_dict(run), topology, axes, run.batch_size, published, programs)


def plan_sampling(
    folder: str,
    adapter: str | None,
    topology: Topology,
    size: VideoSize | None,
    progress: Progress,
    devices: int = 1,
) -> Plan:
    """Compiles what makes a video; devices that do not share it make others at the same time.

    Args:
      folder: of a checkpoint; empty for the published sizes.
      adapter: its kind, a name of `config.ADAPTERS`, or None for no trajectory.
      topology: whose device it is.
      size: of the video; by default that of the checkpoint.
      progress: hears what is being compiled.
      devices: that share a video.

    Raises:
      UserError: the checkpoint lacks a part, or does not take videos of that size; the topology
        cannot be shared out so.
    """
    count = len(topology.devices)
    if devices < 1 or count % devices:
        raise UserError(
            f"--devices {devices} for a video; expected a divisor of the {count} devices of "
            f"{topology.name}"
        )
    mesh = sharding.make_mesh(context=devices, devices=topology.devices)
    with (
        compiling_for(topology.kind.platform),
        without_cudnn(),
        open_sizes(folder, adapter, size) as sizes,
        jax.set_mesh(mesh),
    ):
        sampling, programs = sampling_programs(sizes)
        results = _compile(programs, topology, progress)
    settings = {"sample": folder, "adapter": adapter, "sampling": to_dict(sampling)}
    published = [] if folder else ["the checkpoint"]
    return Plan(settings, topology, dict(mesh.shape), count // devices, published, results)


def _compile(
    programs: list[PlannedProgram], topology: Topology, progress: Progress
) -> list[Compiled | TooLarge]:
    results: list[Compiled | TooLarge] = []
    for program in programs:
        progress(f"compiling {program.name} for {topology.name}")
        results.append(compile_program(program, topology))
    return results


def _require_filled(run: TrainConfig, topology: Topology) -> None:
    mesh, count = run.mesh, len(topology.devices)
    if mesh.data * mesh.fsdp * mesh.context != count:
        videos = max(run.batch_size, count)
        raise UserError(
            f"the mesh of data={mesh.data} x fsdp={mesh.fsdp} x context={mesh.context} does not "
            f"fill {topology.name} with its {count} devices; for instance --set mesh.data=1 --set "
            f"mesh.fsdp={count} --set batch_size={videos}"
        )


def suggest(
    run: TrainConfig, topology: Topology, size: VideoSize | None, progress: Progress
) -> tuple[list[str], Plan] | None:
    """The first change that makes a run fit the same devices, proven by compiling it.

    Args:
      run: that does not fit.
      topology: which it does not fit.
      size: of its videos.
      progress: hears what is being tried.

    Returns:
      Assignments for `--set` and the plan with them; None if none of those tried fits.
    """
    for trial, (assignments, changed) in enumerate(_changes(run)):
        if trial == MAX_TRIALS:
            break
        progress(f"trying {' '.join(assignments)}")
        plan = plan_training(changed, topology, size, progress)
        if not plan.faults:
            return assignments, plan
    return None


def _changes(run: TrainConfig) -> Iterator[tuple[list[str], TrainConfig]]:
    """What takes less memory, cheapest in time first."""
    assignments: list[str] = []
    if run.remat != "full":
        assignments = ["remat=full"]
        yield assignments, with_overrides(run, assignments)
    videos = run.batch_size // (run.mesh.data * run.mesh.fsdp)
    if videos > 1:
        names = [field.name for field in dataclasses.fields(run.stage)]
        optimizers = [name for name in names if name.endswith("optimizer")]
        assignments = assignments + [f"stage.{name}.accumulate={videos}" for name in optimizers]
        yield assignments, with_overrides(run, assignments)
    data, fsdp = run.mesh.data, run.mesh.fsdp
    while data % 2 == 0:
        data, fsdp = data // 2, fsdp * 2
        split = [*assignments, f"mesh.data={data}", f"mesh.fsdp={fsdp}"]
        yield split, with_overrides(run, split)
