"""Plans a run: compiles its programs for a topology and says whether they fit, or what would."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from typing import Any

import jax

from flashmotion_jax.config import TrainConfig, to_dict, with_overrides
from flashmotion_jax.perf.compiled import Compiled, compile_program
from flashmotion_jax.perf.programs import OutOfMemory, PlannedProgram, training_programs
from flashmotion_jax.perf.sampling import open_spec, sampling_programs
from flashmotion_jax.perf.sizes import VideoSize, with_published_sizes
from flashmotion_jax.perf.topology import Topology, target_kernels
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.devices import GIB
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import compiling_for
from flashmotion_jax.runtime.progress import Status

#: How many changes `suggest` compiles in search of one that fits.
MAX_TRIALS = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """Result of compiling a run.

    Attributes:
      settings: What was planned, as JSON values.
      topology: Devices that it was compiled for.
      mesh: Sizes of the mesh's axes, by name.
      videos: Videos per training step, or generated at the same time.
      published: Missing checkpoints that were replaced by the sizes of Wan2.2-TI2V-5B.
      programs: In the order in which they run.
    """

    settings: dict[str, Any]
    topology: Topology
    mesh: dict[str, int]
    videos: int
    published: list[str]
    programs: list[Compiled | OutOfMemory]

    @property
    def compiled(self) -> list[Compiled]:
        """The programs that compiled."""
        return [one for one in self.programs if isinstance(one, Compiled)]

    @property
    def problems(self) -> list[str]:
        """Why the run does not fit; empty if it does."""
        memory = self.topology.kind.memory
        problems = [
            f"{one.program.name} needs {one.reason}"
            for one in self.programs
            if isinstance(one, OutOfMemory)
        ]
        return problems + [
            f"{one.program.name} needs {one.memory.total / GIB:.1f} of {memory / GIB:.1f} GiB"
            for one in self.compiled
            if one.memory.total > memory
        ]

    @property
    def seconds(self) -> float:
        """Lower bound of a training step, or of a video."""
        return sum(one.program.runs * one.seconds.overlapped for one in self.compiled)


def plan_training(
    run: TrainConfig, topology: Topology, size: VideoSize | None, status: Status
) -> Plan:
    """Compiles all updates of a training run.

    Args:
      run: Training run; checkpoints that do not exist get the published sizes.
      topology: Devices, all of which its mesh must use.
      size: Size of its videos, see `sizes.planned_inputs`.
      status: Called with what is being compiled.

    Raises:
      UserError: The mesh does not use all devices, or the configuration is inconsistent.
    """
    axes = dataclasses.asdict(run.mesh)
    _check_mesh(run, topology)
    mesh = sharding.make_mesh(**axes, devices=topology.devices)
    with with_published_sizes(run) as (sized, published), _compiling(topology, mesh):
        programs = _compile(training_programs(sized, size), topology, status)
    return Plan(to_dict(run), topology, axes, run.batch_size, published, programs)


def plan_sampling(
    folder: str,
    adapter: str | None,
    topology: Topology,
    size: VideoSize | None,
    status: Status,
    devices: int = 1,
    **options: Any,
) -> Plan:
    """Compiles the programs that generate a video.

    Args:
      folder: Checkpoint folder; empty for the published sizes.
      adapter: Kind of adapter, a name of `config.ADAPTERS`, or None for no trajectory.
      topology: Devices. Each group of `devices` generates a video of its own.
      size: Size of the video; by default that of the checkpoint.
      status: Called with what is being compiled.
      devices: How many devices share a video.
      **options: `weights` and `decoder` of a `sampling.SampleSpec`.

    Raises:
      UserError: The checkpoint lacks a part or does not take videos of that size, or the number of
        devices is not a multiple of `devices`.
    """
    count = len(topology.devices)
    if devices < 1 or count % devices:
        raise UserError(
            f"--devices {devices} for a video; expected a divisor of the {count} devices of "
            f"{topology.name}"
        )
    mesh = sharding.make_mesh(context=devices, devices=topology.devices)
    with open_spec(folder, adapter, size, **options) as spec, _compiling(topology, mesh):
        sampling, programs = sampling_programs(spec)
        results = _compile(programs, topology, status)
    settings = {"sample": folder, "adapter": adapter, "sampling": to_dict(sampling), **options}
    published = [] if folder else ["the checkpoint"]
    return Plan(settings, topology, dict(mesh.shape), count // devices, published, results)


@contextlib.contextmanager
def _compiling(topology: Topology, mesh: jax.sharding.Mesh) -> Generator[None]:
    """Compiles for the devices of a topology, with the mesh set."""
    with compiling_for(topology.kind.platform), target_kernels(topology), jax.set_mesh(mesh):
        yield


def _compile(
    programs: list[PlannedProgram], topology: Topology, status: Status
) -> list[Compiled | OutOfMemory]:
    results: list[Compiled | OutOfMemory] = []
    for program in programs:
        status(f"compiling {program.name} for {topology.name}")
        results.append(compile_program(program, topology))
    return results


def _check_mesh(run: TrainConfig, topology: Topology) -> None:
    mesh, count = run.mesh, len(topology.devices)
    if mesh.data * mesh.fsdp * mesh.context != count:
        videos = max(run.batch_size, count)
        raise UserError(
            f"a mesh of data={mesh.data} x fsdp={mesh.fsdp} x context={mesh.context} does not use "
            f"all {count} devices of {topology.name}; for instance --set mesh.data=1 --set "
            f"mesh.fsdp={count} --set batch_size={videos}"
        )


def suggest(
    run: TrainConfig, topology: Topology, size: VideoSize | None, status: Status
) -> tuple[list[str], Plan] | None:
    """Finds the first change with which a run fits on the same devices, by compiling it.

    Args:
      run: Training run that does not fit.
      topology: Devices.
      size: Size of its videos.
      status: Called with what is being tried.

    Returns:
      Assignments for `--set` and the plan with them; None if no change that was tried fits.
    """
    for trial, (assignments, changed) in enumerate(_changes(run)):
        if trial == MAX_TRIALS:
            break
        status(f"trying {' '.join(assignments)}")
        plan = plan_training(changed, topology, size, status)
        if not plan.problems:
            return assignments, plan
    return None


def _changes(run: TrainConfig) -> Iterator[tuple[list[str], TrainConfig]]:
    """Changes that save memory, those that cost the least time first."""
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
