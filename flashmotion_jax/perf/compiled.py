"""Compiles one program ahead of time: its memory, its work, and a lower bound of its time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax

from flashmotion_jax.perf.hlo import parse_hlo
from flashmotion_jax.perf.hlo_counts import Counts, count
from flashmotion_jax.perf.hlo_traffic import count_traffic
from flashmotion_jax.perf.programs import OutOfMemory, PlannedProgram
from flashmotion_jax.perf.topology import Topology
from flashmotion_jax.runtime.errors import is_resource_exhausted

#: How often the bytes of a collective's whole array cross a device's links; others cross once.
CROSSINGS = {"all-reduce": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
      arguments: Arguments of the program.
      output: Its results, without those that overwrite donated arguments.
      temporaries: XLA's sum of all scratch buffers; not all of them live at the same time.
      peak: Maximum of all three at any time.
      idle: What stays on the device but is no argument, such as another optimizer's state.
    """

    arguments: int
    output: int
    temporaries: int
    peak: int
    idle: int

    @property
    def total(self) -> int:
        """Peak memory, idle arrays included."""
        return self.peak + self.idle


@dataclass(frozen=True)
class Roofline:
    """Lower bounds in seconds, one for each resource.

    Attributes:
      compute: Matmuls, convolutions and attention at the device's peak FLOP/s.
      memory: Bytes read and written at the memory's bandwidth.
      communication: Bytes of collectives at the speed of the links.
    """

    compute: float
    memory: float
    communication: float

    @property
    def overlapped(self) -> float:
        """If all three overlap perfectly: no run is faster."""
        return max(self.compute, self.memory, self.communication)

    @property
    def serial(self) -> float:
        """If nothing overlaps."""
        return self.compute + self.memory + self.communication


@dataclass(frozen=True)
class Compiled:
    """A program that compiled.

    Attributes:
      program: The program.
      memory: On one device.
      counts: Of one device, from the compiled text.
      traffic: Bytes that one device reads and writes.
      seconds: Of one run.
      compile_seconds: Time that the compiler took on this machine.
    """

    program: PlannedProgram
    memory: Memory
    counts: Counts
    traffic: int
    seconds: Roofline
    compile_seconds: float


def compile_program(program: PlannedProgram, topology: Topology) -> Compiled | OutOfMemory:
    """Compiles a program for the current mesh.

    Args:
      program: Program to compile.
      topology: Devices of the mesh.

    Raises:
      jax.errors.JaxRuntimeError: The compiler failed for another reason than too little memory.
    """
    lowered = program.lower()
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_resource_exhausted(error):
            raise
        return OutOfMemory.from_message(program, str(error))
    seconds = time.perf_counter() - start
    text = parse_hlo(compiled.as_text() or "")
    counts, traffic = count(text), count_traffic(text)
    # Partitioning can repeat work on several devices, and kernels hide theirs from the text.
    flops = max(program.flops / jax.sharding.get_mesh().size, counts.flops)
    return Compiled(
        program=program,
        memory=_memory(compiled.memory_analysis(), program),
        counts=counts,
        traffic=traffic,
        # The peak is that of bfloat16; matmuls in 8 bits have twice that.
        seconds=_roofline(topology, flops - counts.eight_bit_flops / 2, traffic, counts),
        compile_seconds=seconds,
    )


def _memory(analysis: Any, program: PlannedProgram) -> Memory:
    arguments = analysis.argument_size_in_bytes
    return Memory(
        arguments=arguments,
        output=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        peak=analysis.peak_memory_in_bytes,
        idle=max(0, program.resident - arguments),
    )


def _roofline(topology: Topology, flops: float, traffic: int, counts: Counts) -> Roofline:
    kind = topology.kind
    speed = kind.link
    if topology.num_hosts > 1:
        # Rings across hosts use all network adapters of a host, and the links inside it.
        speed = min(kind.link, kind.network * kind.devices_per_host)
    crossed = sum(
        CROSSINGS.get(name, 1) * collective.payload_bytes
        for name, collective in counts.collectives.items()
    )
    return Roofline(flops / kind.peak_flops, traffic / kind.bandwidth, crossed / speed)
