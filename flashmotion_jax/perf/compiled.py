"""One program compiled for a topology: its memory, its work, and the least time it can take."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

import jax

from flashmotion_jax.perf.counting import Counts, count
from flashmotion_jax.perf.programs import PlannedProgram
from flashmotion_jax.perf.topology import Topology
from flashmotion_jax.perf.traffic import count_traffic
from flashmotion_jax.runtime.devices import GIB
from flashmotion_jax.runtime.errors import is_resource_exhausted

#: How often the bytes of a collective's whole array cross a device's links.
CROSSINGS = {"all-reduce": 2}


class Memory(NamedTuple):
    """Bytes on one device.

    Attributes:
      arguments: of the program.
      output: what it makes anew; donated arguments are written over.
      temporaries: XLA's sum of all scratch, some of which never lives at the same time.
      peak: the most of all three at any time.
      beside: what stays on the device meanwhile and is no argument, such as other players' moments.
    """

    arguments: int
    output: int
    temporaries: int
    peak: int
    beside: int

    @property
    def needed(self) -> int:
        """The most at any time, with what stays beside it."""
        return self.peak + self.beside


class Seconds(NamedTuple):
    """The least time of each kind of work.

    Attributes:
      compute: matmuls, convolutions and attention at the device's peak.
      memory: bytes that are read and written.
      communication: bytes of collectives.
    """

    compute: float
    memory: float
    communication: float

    @property
    def overlapped(self) -> float:
        """All at the same time: no run is faster."""
        return max(self)

    @property
    def added(self) -> float:
        """One after the other: a program that overlaps nothing."""
        return sum(self)


class Compiled(NamedTuple):
    """A program that compiled.

    Attributes:
      program: as it was planned.
      memory: on one device.
      counts: of one device, from the compiled text.
      traffic: bytes that one device reads and writes.
      seconds: of one run.
      compile_seconds: that the compiler took, here.
    """

    program: PlannedProgram
    memory: Memory
    counts: Counts
    traffic: int
    seconds: Seconds
    compile_seconds: float


class TooLarge(NamedTuple):
    """A program that the compiler refused for want of memory.

    Attributes:
      program: as it was planned.
      needed: bytes on a device.
      reason: in the compiler's words, in short.
    """

    program: PlannedProgram
    needed: int
    reason: str


def compile_program(program: PlannedProgram, topology: Topology) -> Compiled | TooLarge:
    """Compiles a program for the mesh that is set.

    Args:
      program: to compile.
      topology: of the mesh.

    Raises:
      jax.errors.JaxRuntimeError: the compiler failed, and not for want of memory.
    """
    lowered = program.lower()
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_resource_exhausted(error):
            raise
        return _too_large(program, str(error))
    seconds = time.perf_counter() - start
    text = compiled.as_text() or ""
    counts, traffic = count(text), count_traffic(text)
    size = jax.sharding.get_mesh().size
    return Compiled(
        program=program,
        memory=_memory(compiled.memory_analysis(), program),
        counts=counts,
        traffic=traffic,
        seconds=_roofline(topology, max(program.flops / size, counts.flops), traffic, counts),
        compile_seconds=seconds,
    )


def _memory(analysis: Any, program: PlannedProgram) -> Memory:
    arguments = analysis.argument_size_in_bytes
    return Memory(
        arguments=arguments,
        output=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        peak=analysis.peak_memory_in_bytes,
        beside=max(0, program.resident - arguments),
    )


def _too_large(program: PlannedProgram, message: str) -> TooLarge:
    """What a TPU's compiler says of a program: "Used 20.73G of 15.75G hbm"."""
    found = re.search(r"[Uu]sed ([\d.]+)G of ([\d.]+)G hbm", message)
    if found:
        needed = int(float(found.group(1)) * GIB)
        return TooLarge(program, needed, f"{found.group(1)} of {found.group(2)} GiB")
    return TooLarge(program, 0, message.splitlines()[0][:200])


def _roofline(topology: Topology, flops: float, traffic: int, counts: Counts) -> Seconds:
    kind = topology.kind
    speed = kind.link
    if topology.num_hosts > 1:
        # Rings over hosts use all adapters of a host at once, and the devices' links within it.
        speed = min(kind.link, kind.network * kind.devices_per_host)
    crossed = sum(
        CROSSINGS.get(name, 1) * collective.payload_bytes
        for name, collective in counts.collectives.items()
    )
    return Seconds(flops / kind.peak_flops, traffic / kind.bandwidth, crossed / speed)
