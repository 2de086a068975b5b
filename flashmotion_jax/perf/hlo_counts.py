"""Counts FLOPs, collectives and kernels of a compiled program, with loops as often as they run.

XLA's own `cost_analysis` counts the body of a scan once, whatever its length. `runtime/flops.py`
counts the program as it was traced, for all devices; here it is what one device really does, after
partitioning and all of XLA's rewrites.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from flashmotion_jax.perf.hlo import Execution, HloProgram, dimensions, size_in_bytes
from flashmotion_jax.runtime.flops import matmul_flops

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

#: Dtypes that are multiplied at twice the speed of bfloat16, in the words of XLA.
EIGHT_BITS = ("s8", "f8e4m3fn")

#: Opcodes whose computations hold matmuls; the computation of a reduction is not worth counting.
_CALLERS = ("fusion", "call", "async-start")


@dataclass
class Collective:
    """All runs of one kind of collective.

    Attributes:
      runs: How many there are.
      payload_bytes: Bytes of the whole arrays that they assemble.
    """

    runs: int = 0
    payload_bytes: int = 0


@dataclass
class Counts:
    """What one device does in one run of a program.

    Attributes:
      flops: FLOPs of dots and convolutions, a multiply-add as two. Zeros that pad a convolution do
        not count, nor does the arithmetic inside `kernels`.
      collectives: By kind.
      matmuls: Runs of matmuls, those of cuBLAS among them, by dtype of the second operand in the
        words of XLA: "bf16", "s8", "f8e4m3fn".
      eight_bit_flops: FLOPs of those in 8 bits, of cuBLAS too.
      kernels: Runs of each custom call; the text does not show what is inside.
      unknown_loops: Loops without a readable trip count, counted as running once.
    """

    flops: int = 0
    matmuls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    eight_bit_flops: int = 0
    collectives: dict[str, Collective] = field(default_factory=lambda: defaultdict(Collective))
    kernels: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unknown_loops: int = 0


def count(program: HloProgram) -> Counts:
    """Counts a compiled program."""
    counts = Counts()
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for execution in program.executions(_CALLERS):
        instruction = execution.instruction
        opcode = instruction.opcode
        kind = opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            # On TPUs one collective may be written as start, step and done, which share a chain.
            chain = instruction.attribute(r'chain_id="(\d+)"') or instruction.name
            if (kind, chain, execution.loops) not in seen:
                seen.add((kind, chain, execution.loops))
                counts.collectives[kind].runs += execution.times
                counts.collectives[kind].payload_bytes += execution.times * _payload(execution)
        elif opcode == "dot":
            _add_matmul(counts, execution, flops := _dot_flops(execution))
            counts.flops += execution.times * flops
        elif opcode == "convolution":  # a matmul in the words of TPUs, where nothing is spatial
            flops = _convolution_flops(execution)
            if "_io->" in instruction.rest:
                _add_matmul(counts, execution, flops)
            counts.flops += execution.times * flops
        elif opcode == "while":
            counts.unknown_loops += program.trip_count(instruction) is None
        elif opcode == "custom-call":
            target = str(instruction.attribute(r'_target="([^"]+)"'))
            counts.kernels[target] += execution.times
            if target.startswith("__cublas$"):
                _add_matmul(counts, execution, _cublas_flops(execution))
    return counts


def _add_matmul(counts: Counts, execution: Execution, flops: int) -> None:
    dtype = execution.operands[1].shape.partition("[")[0]
    counts.matmuls[dtype] += execution.times
    if dtype in EIGHT_BITS:
        counts.eight_bit_flops += execution.times * flops


def _payload(execution: Execution) -> int:
    """Bytes of the whole array that a collective assembles."""
    given = sum(size_in_bytes(operand.shape) for operand in execution.operands)
    result = size_in_bytes(execution.instruction.shape)
    # The result of an asynchronous collective holds its operands too.
    if execution.instruction.opcode.endswith("-start"):
        result -= given
    return max(given, result)


def _dot_flops(execution: Execution) -> int:
    dot = execution.instruction
    left = dimensions(execution.operands[0].shape)
    axes = dot.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    contracted = [left[int(axis)] for axis in axes.split(",") if axis]
    return matmul_flops(dimensions(dot.shape), contracted)


def _cublas_flops(execution: Execution) -> int:
    left = dimensions(execution.operands[0].shape)
    pattern = r'"lhs_contracting_dimensions":\[([^\]]*)\]'
    axes = (execution.instruction.attribute(pattern) or "").replace('"', "")
    contracted = [left[int(axis)] for axis in axes.split(",") if axis]
    return matmul_flops(dimensions(execution.instruction.shape), contracted)


def _convolution_flops(execution: Execution) -> int:
    convolution = execution.instruction
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.rest)
    if not found:
        raise ValueError(
            f"convolution {convolution.name} without dim_labels: expected b01f_01io->b01f"
        )
    sizes = [operand.shape for operand in execution.operands[:2]] + [convolution.shape]
    image, kernel, out = (
        dict(zip(labels, dimensions(shape), strict=True))
        for labels, shape in zip(found.groups(), sizes, strict=True)
    )
    options = convolution.attribute(r"window=\{([^}]*)\}") or ""
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", options))
    spatial = sorted(label for label in out if label.isdigit())
    taps = [
        _taps(image[axis], kernel[axis], out[axis], window, index)
        for index, axis in enumerate(spatial)
    ]
    return matmul_flops((out["b"], out["f"]), (kernel["i"], *taps))


def _taps(image: int, kernel: int, out: int, window: Mapping[str, str], axis: int) -> int:
    """Pairs of an output position and a kernel tap along an axis whose input is not padding."""

    def option(name: str) -> int:
        return int(window[name].split("x")[axis]) if name in window else 1

    before = int(window["pad"].split("x")[axis].split("_")[0]) if "pad" in window else 0
    spread = option("lhs_dilate")
    at = (
        position * option("stride") + tap * option("rhs_dilate") - before
        for position in range(out)
        for tap in range(kernel)
    )
    return sum(0 <= place <= (image - 1) * spread and place % spread == 0 for place in at)
