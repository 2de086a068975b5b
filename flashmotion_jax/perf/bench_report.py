"""Measurements as text and as JSON."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterator
from typing import Any

import jax

from flashmotion_jax.perf.bench import Bench
from flashmotion_jax.perf.peer import versions
from flashmotion_jax.runtime.devices import GB, TERA


def to_lines(bench: Bench) -> Iterator[str]:
    """Measurements as lines of text."""
    yield (
        f"{bench.device}: {bench.matmul / TERA:,.1f} TFLOP/s in a matmul; DiT of {bench.layers} "
        f"layers, {bench.size.num_frames} frames of {bench.size.width} x {bench.size.height}; "
        f"attention: {bench.attention}"
    )
    yield (
        f"{'program':44}{'runs':>6}{'compile s':>11}{'run s':>10}{'GB':>8}{'TFLOP/s':>10}"
        f"{'of matmul':>11}"
    )
    for group, one in bench.measured:
        yield (
            f"{f'{group}: {one.program.name}':44}{one.program.runs:6.3g}"
            f"{one.compile_seconds:11.1f}{one.median:10.4f}{one.memory / GB:8.2f}"
            f"{one.rate / TERA:10.2f}{one.rate / bench.matmul:11.1%}"
        )
    for group, failed in bench.out_of_memory:
        yield f"{group}: {failed.program.name} does not fit: {failed.reason}"
    for group, seconds in bench.totals.items():
        yield f"{group}, total: {seconds:.3f} s"
    for group, run in bench.pipeline.items():
        stages = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in run.stages.items())
        memory = f"; peak memory {run.memory / GB:.1f} GB" if run.memory else ""
        yield f"{group}, a video by the pipeline: {run.median:.3f} s ({stages}){memory}"
    if bench.compared:
        yield (f"{'compared with diffusers':44}{'ours s':>10}{'theirs s':>10}{'theirs / ours':>15}")
    for one in bench.compared:
        note = f" ({one.note})" if one.note else ""
        yield f"{one.name:44}{one.ours:10.4f}{one.theirs:10.4f}{one.ratio:15.2f}  {one.how}{note}"


def to_json(bench: Bench, command: str) -> dict[str, Any]:
    """Measurements as JSON values.

    Args:
      bench: Measurements.
      command: Command that made them.
    """
    packages = versions() if bench.compared else {}
    return {
        "command": command,
        "device": bench.device,
        "versions": {"jax": jax.__version__, "python": platform.python_version(), **packages},
        "layers": bench.layers,
        "attention": bench.attention,
        "video": dataclasses.asdict(bench.size),
        "matmul_flops_per_second": bench.matmul,
        "peak_flops_per_second": bench.peak,
        "programs": [
            {
                "group": group,
                "name": one.program.name,
                "runs": one.program.runs,
                "compile_seconds": one.compile_seconds,
                "seconds": one.seconds,
                "memory": one.memory,
                "model_flops": one.program.model_flops,
                "devices": one.devices,
                "mfu": one.rate / bench.peak if bench.peak else None,
            }
            for group, one in bench.measured
        ],
        "out_of_memory": [
            {"group": group, "name": one.program.name, "reason": one.reason}
            for group, one in bench.out_of_memory
        ],
        "total_seconds": bench.totals,
        "pipeline": {group: dataclasses.asdict(one) for group, one in bench.pipeline.items()},
        "compared": [dataclasses.asdict(one) | {"ratio": one.ratio} for one in bench.compared],
    }
