"""Plans as text, as JSON, and as rows of a table."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator
from typing import Any

from flashmotion_jax.perf.compiled import Compiled
from flashmotion_jax.perf.plan import Plan
from flashmotion_jax.runtime.devices import GB, GIB

TERA = 1e12
#: What a plan says of its devices.
_DEVICE = ("platform", "memory", "bandwidth", "link", "network", "devices_per_host", "source")
_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda13-pjrt")

HEADER = (
    *("run", "devices", "mesh", "videos", "peak memory, GiB of", "TFLOP per device"),
    *("memory traffic, TB", "collectives, GB", "least seconds: compute, memory, network", "step"),
)


def to_json(plan: Plan, command: str) -> dict[str, Any]:
    """A plan in JSON types; bytes and operations are of one device.

    Args:
      plan: what came of compiling.
      command: that made it.
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
        "least_seconds": plan.seconds,
        "fits": not plan.faults,
        "faults": plan.faults,
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _program(one: Any, plan: Plan) -> dict[str, Any]:
    if not isinstance(one, Compiled):
        return {"name": one.program.name, "needed": one.needed, "reason": one.reason}
    size = math.prod(plan.mesh.values())
    return {
        "name": one.program.name,
        "runs": one.program.runs,
        "memory": one.memory._asdict() | {"needed": one.memory.needed},
        "flops": {
            "model": one.program.model_flops / size,
            "traced": one.program.flops / size,
            "compiled": one.counts.flops,
        },
        "traffic": one.traffic,
        "collectives": {
            name: {"runs": each.runs, "bytes": each.payload_bytes}
            for name, each in sorted(one.counts.collectives.items())
        },
        "kernels": dict(sorted(one.counts.kernels.items())),
        "unknown_loops": one.counts.unknown_loops,
        "seconds": one.seconds._asdict(),
        "compile_seconds": round(one.compile_seconds, 1),
    }


def to_lines(plan: Plan) -> Iterator[str]:
    """What a person reads of a plan."""
    topology, mesh = plan.topology, " x ".join(f"{k}={v}" for k, v in plan.mesh.items())
    yield (
        f"{topology.name}: {len(topology.devices)} devices in {topology.num_hosts} hosts, "
        f"{topology.kind.memory / GIB:.1f} GiB each to use; mesh {mesh}, {plan.videos} videos"
    )
    if plan.published:
        missing = ", ".join(plan.published)
        yield f"sizes of Wan2.2-TI2V-5B for {missing}, which are not there"
    size = math.prod(plan.mesh.values())
    for one in plan.compiled:
        yield from _program_lines(one, one.program.flops / size)
    for fault in plan.faults:
        yield f"does not fit: {fault}"
    if not plan.faults:
        yield (
            f"fits; at least {plan.seconds:.2f} s a step or video ({_bound(plan)}): a roofline, "
            "which no program reaches"
        )


def _program_lines(one: Compiled, flops: float) -> Iterator[str]:
    memory, seconds = one.memory, one.seconds
    runs = one.program.runs
    yield f"{one.program.name}, {runs:g} times, compiled in {one.compile_seconds:.0f} s"
    yield (
        f"  memory: {memory.needed / GIB:.2f} GiB at most = {memory.peak / GIB:.2f} of the program "
        f"(arguments {memory.arguments / GIB:.2f}, output {memory.output / GIB:.2f}, temporaries "
        f"{memory.temporaries / GIB:.2f} in sum) + {memory.beside / GIB:.2f} beside it"
    )
    yield (
        f"  work: {flops / TERA:,.1f} TFLOP as traced; compiled, {one.counts.flops / TERA:,.1f} "
        f"outside of {sum(one.counts.kernels.values())} kernels; {one.traffic / TERA:.2f} TB read "
        "and written"
    )
    for name, each in sorted(one.counts.collectives.items()):
        yield f"  {name}: {each.runs} runs, {each.payload_bytes / GB:.2f} GB"
    yield (
        f"  least seconds: {seconds.compute:.3f} compute, {seconds.memory:.3f} memory, "
        f"{seconds.communication:.3f} communication; {seconds.added:.3f} if nothing overlaps"
    )
    if one.counts.unknown_loops:
        yield f"  {one.counts.unknown_loops} loops of unknown length are counted once"


def _bound(plan: Plan) -> str:
    kinds = ("compute", "memory", "communication")
    totals = {
        kind: sum(one.program.runs * getattr(one.seconds, kind) for one in plan.compiled)
        for kind in kinds
    }
    return f"bound by {max(totals, key=totals.__getitem__)}"


def to_row(name: str, plan: dict[str, Any]) -> tuple[str, ...]:
    """A row of a table of plans.

    Args:
      name: of what was planned.
      plan: from `to_json`.
    """
    programs = [one for one in plan["programs"] if "memory" in one]
    topology = plan["topology"]

    def total(*keys: str) -> float:
        values = []
        for one in programs:
            value: Any = one
            for key in keys:
                value = value[key]
            values.append(one["runs"] * value)
        return sum(values)

    collectives = sum(
        one["runs"] * each["bytes"] for one in programs for each in one["collectives"].values()
    )
    needed = max(one["memory"]["needed"] for one in programs)
    traced = sum(
        one["runs"] * max(one["flops"]["traced"], one["flops"]["compiled"]) for one in programs
    )
    seconds = ", ".join(
        f"{total('seconds', kind):.2f}" for kind in ("compute", "memory", "communication")
    )
    mesh = " x ".join(str(size) for size in plan["mesh"].values())
    return (
        *(name, topology["name"], mesh, str(plan["videos"])),
        f"{needed / GIB:.1f} of {topology['memory'] / GIB:.1f}",
        *(f"{traced / TERA:,.0f}", f"{total('traffic') / TERA:.2f}", f"{collectives / GB:.1f}"),
        *(seconds, f"{plan['least_seconds']:.2f} s"),
    )
