"""Plans as text, as JSON, and as rows of a table."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Iterator
from typing import Any

from flashmotion_jax.perf.compiled import Compiled
from flashmotion_jax.perf.plan import Plan
from flashmotion_jax.perf.programs import OutOfMemory
from flashmotion_jax.runtime.devices import GB, GIB, TERA

#: Fields of a `CompileTarget` that a plan records.
_DEVICE = ("platform", "memory", "bandwidth", "link", "network", "devices_per_host", "source")
_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda13-pjrt")
_RESOURCES = ("compute", "memory", "communication")

#: Columns of `to_row`.
HEADER = (
    *("run", "devices", "mesh", "videos", "peak memory, GiB", "TFLOP per device"),
    *("memory traffic, TB", "collectives, GB", "seconds: compute, memory, communication"),
    "lower bound",
)


def to_json(plan: Plan, command: str) -> dict[str, Any]:
    """A plan as JSON values; bytes and FLOPs are those of one device.

    Args:
      plan: Plan.
      command: Command that made it.
    """
    return {
        "command": command,
        "versions": dict(_versions()),
        "topology": {
            "name": plan.topology.name,
            "devices": len(plan.topology.devices),
            "hosts": plan.topology.num_hosts,
            **{name: getattr(plan.topology.kind, name) for name in _DEVICE},
        },
        "mesh": plan.mesh,
        "videos": plan.videos,
        "published_sizes_for": plan.published,
        "settings": plan.settings,
        "programs": [_program(one, plan) for one in plan.programs],
        "roofline_seconds": plan.seconds,
        "fits": not plan.problems,
        "problems": plan.problems,
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _program(one: Compiled | OutOfMemory, plan: Plan) -> dict[str, Any]:
    if isinstance(one, OutOfMemory):
        return {"name": one.program.name, "needed": one.needed, "reason": one.reason}
    size = math.prod(plan.mesh.values())
    return {
        "name": one.program.name,
        "runs": one.program.runs,
        "memory": dataclasses.asdict(one.memory) | {"total": one.memory.total},
        "flops": {
            "model": one.program.model_flops / size,
            "traced": one.program.flops / size,
            "compiled": one.counts.flops,
            "eight_bit": one.counts.eight_bit_flops,
        },
        "traffic": one.traffic,
        "collectives": {
            name: {"runs": each.runs, "bytes": each.payload_bytes}
            for name, each in sorted(one.counts.collectives.items())
        },
        "matmuls": dict(sorted(one.counts.matmuls.items())),
        "kernels": dict(sorted(one.counts.kernels.items())),
        "unknown_loops": one.counts.unknown_loops,
        "seconds": dataclasses.asdict(one.seconds),
        "compile_seconds": round(one.compile_seconds, 1),
    }


def to_lines(plan: Plan) -> Iterator[str]:
    """A plan as lines of text."""
    topology, mesh = plan.topology, " x ".join(f"{k}={v}" for k, v in plan.mesh.items())
    yield (
        f"{topology.name}: {len(topology.devices)} devices on {topology.num_hosts} hosts, "
        f"{topology.kind.memory / GIB:.1f} GiB usable on each; mesh {mesh}, {plan.videos} videos"
    )
    if plan.published:
        missing = ", ".join(plan.published)
        yield f"not found, so with the sizes of Wan2.2-TI2V-5B: {missing}"
    size = math.prod(plan.mesh.values())
    for one in plan.compiled:
        yield from _program_lines(one, one.program.flops / size)
    for problem in plan.problems:
        yield f"does not fit: {problem}"
    if not plan.problems:
        yield (
            f"fits; a training step or video takes at least {plan.seconds:.2f} s, bound by "
            f"{_bound(plan)} (a roofline; real programs take longer)"
        )


def _program_lines(one: Compiled, flops: float) -> Iterator[str]:
    memory, seconds = one.memory, one.seconds
    yield f"{one.program.name}: {one.program.runs:g} runs, compiled in {one.compile_seconds:.0f} s"
    yield (
        f"  memory: {memory.total / GIB:.2f} GiB = {memory.peak / GIB:.2f} peak of the program "
        f"(arguments {memory.arguments / GIB:.2f}, output {memory.output / GIB:.2f}, all "
        f"temporaries {memory.temporaries / GIB:.2f}) + {memory.idle / GIB:.2f} idle"
    )
    yield (
        f"  work: {flops / TERA:,.1f} TFLOP traced; compiled, {one.counts.flops / TERA:,.1f} "
        f"outside of {sum(one.counts.kernels.values())} kernels; {one.traffic / TERA:.2f} TB of "
        "memory traffic"
    )
    if one.counts.eight_bit_flops:
        matmuls = ", ".join(f"{runs} of {dtype}" for dtype, runs in one.counts.matmuls.items())
        yield f"  in 8 bits: {one.counts.eight_bit_flops / TERA:,.1f} TFLOP; matmuls: {matmuls}"
    for name, each in sorted(one.counts.collectives.items()):
        yield f"  {name}: {each.runs} runs, {each.payload_bytes / GB:.2f} GB"
    yield (
        f"  seconds at least: compute {seconds.compute:.3f}, memory {seconds.memory:.3f}, "
        f"communication {seconds.communication:.3f}; {seconds.serial:.3f} without overlap"
    )
    if one.counts.unknown_loops:
        yield f"  {one.counts.unknown_loops} loops of unknown length are counted once"


def _bound(plan: Plan) -> str:
    """The resource that takes longest."""
    totals = {
        name: sum(one.program.runs * getattr(one.seconds, name) for one in plan.compiled)
        for name in _RESOURCES
    }
    return max(totals, key=totals.__getitem__)


def to_row(name: str, plan: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a plan in a table under `HEADER`.

    Args:
      name: Name of what was planned.
      plan: Result of `to_json`.
    """
    programs = [one for one in plan["programs"] if "memory" in one]
    topology = plan["topology"]
    total = max(one["memory"]["total"] for one in programs)
    flops = sum(
        one["runs"] * max(one["flops"]["traced"], one["flops"]["compiled"]) for one in programs
    )
    traffic = sum(one["runs"] * one["traffic"] for one in programs)
    collectives = sum(
        one["runs"] * each["bytes"] for one in programs for each in one["collectives"].values()
    )
    seconds = [sum(one["runs"] * one["seconds"][name] for one in programs) for name in _RESOURCES]
    return (
        name,
        topology["name"],
        " x ".join(str(size) for size in plan["mesh"].values()),
        str(plan["videos"]),
        f"{total / GIB:.1f} of {topology['memory'] / GIB:.1f}",
        f"{flops / TERA:,.0f}",
        f"{traffic / TERA:.2f}",
        f"{collectives / GB:.1f}",
        ", ".join(f"{each:.2f}" for each in seconds),
        f"{plan['roofline_seconds']:.2f} s",
    )
