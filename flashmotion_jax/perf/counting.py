"""Arithmetic and communication of a compiled program, with loops counted as often as they run.

XLA's own `cost_analysis` counts the body of a scan once, whatever its length.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

from flashmotion_jax.perf.hlo_text import (
    Computation,
    Instruction,
    dimensions,
    read_computations,
    size_in_bytes,
    trip_count,
)
from flashmotion_jax.runtime.errors import UserError

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

#: Instructions whose computation runs as a part of them; that of a reduction is not worth counting.
_CALLERS = ("fusion", "call", "async-start")


@dataclass
class Collective:
    """All runs of one kind of collective: their number, and bytes of the whole arrays they join."""

    runs: int = 0
    payload_bytes: int = 0


@dataclass
class Counts:
    """What one device does in one run of a program.

    Attributes:
      flops: of dots and convolutions, a multiplication and an addition as two; zeros that pad a
        convolution are not counted, and neither is the arithmetic in `kernels`.
      collectives: by kind.
      kernels: runs of each custom call, whose inside the text does not show.
      unknown_loops: loops without a readable count, taken to run once.
    """

    flops: int = 0
    collectives: dict[str, Collective] = field(default_factory=lambda: defaultdict(Collective))
    kernels: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unknown_loops: int = 0


def count(text: str) -> Counts:
    """Counts a compiled program.

    Args:
      text: of `jax.jit(f).lower(...).compile().as_text()`.

    Raises:
      UserError: it is no such text.
    """
    computations, entry = read_computations(text)
    counter = _Counter(computations)
    counter.visit(entry, 1, ())
    return counter.counts


class _Counter:
    """Walks a program from its entry; `times` is how often the computation at hand runs."""

    def __init__(self, computations: dict[str, Computation]):
        self.computations = computations
        self.counts = Counts()
        self.seen: set[tuple[str, str, tuple[str, ...]]] = set()

    def visit(self, name: str, times: int, loops: tuple[str, ...]) -> None:
        computation = self.computations[name]
        for instruction in computation.values():
            opcode = instruction.opcode
            kind = opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                self._collective(instruction, kind, computation, times, loops)
            elif opcode == "dot":
                self.counts.flops += times * _dot_flops(instruction, computation)
            elif opcode == "convolution":
                self.counts.flops += times * _convolution_flops(instruction, computation)
            elif opcode == "while":
                trips = trip_count(self.computations, instruction)
                self.counts.unknown_loops += trips is None
                body = str(instruction.attribute(r"body=%?([\w.\-]+)"))
                self.visit(body, times * (1 if trips is None else trips), (*loops, body))
            elif opcode == "custom-call":
                self.counts.kernels[str(instruction.attribute(r'_target="([^"]+)"'))] += times
            elif opcode == "conditional":
                self._branches(instruction, times, loops)
            elif opcode in _CALLERS:
                called = instruction.attribute(r"(?:calls|to_apply)=%?([\w.\-]+)")
                if called in self.computations:
                    self.visit(called, times, loops)

    def _branches(self, instruction: Instruction, times: int, loops: tuple[str, ...]) -> None:
        """Counts every branch, as if all ran: a bound, for one cannot know which does."""
        listed = instruction.attribute(r"branch_computations=\{([^}]*)\}")
        pattern = r"%([\w.\-]+)" if listed else r"(?:true|false)_computation=%?([\w.\-]+)"
        for branch in re.findall(pattern, listed or instruction.rest):
            self.visit(branch, times, loops)

    def _collective(
        self,
        instruction: Instruction,
        kind: str,
        computation: Computation,
        times: int,
        loops: tuple[str, ...],
    ) -> None:
        # On TPUs one collective may be written as start, step and done; they share a chain.
        chain = instruction.attribute(r'chain_id="(\d+)"') or instruction.name
        if (kind, chain, loops) in self.seen:
            return
        self.seen.add((kind, chain, loops))
        given = sum(size_in_bytes(computation[name].shape) for name in instruction.operands)
        result = size_in_bytes(instruction.shape)
        # The result of an asynchronous one names its operands too.
        made = result - given if instruction.opcode.endswith("-start") else result
        total = self.counts.collectives[kind]
        total.runs += times
        total.payload_bytes += times * max(given, made)


def _dot_flops(dot: Instruction, computation: Computation) -> int:
    left = dimensions(computation[dot.operands[0]].shape)
    contracted = dot.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    terms = math.prod(left[int(axis)] for axis in contracted.split(",") if axis)
    return 2 * terms * math.prod(dimensions(dot.shape))


def _convolution_flops(convolution: Instruction, computation: Computation) -> int:
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.rest)
    if not found:
        raise UserError(
            f"convolution {convolution.name} without dim_labels: expected b01f_01io->b01f"
        )
    sizes = [computation[name].shape for name in convolution.operands[:2]] + [convolution.shape]
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
    return 2 * out["b"] * out["f"] * kernel["i"] * math.prod(taps)


def _taps(image: int, kernel: int, out: int, window: dict[str, str], axis: int) -> int:
    """Pairs along an axis of a position of the result and a tap that lies on the image."""

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
