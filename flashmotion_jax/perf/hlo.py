"""Reads the text of a compiled program: computations, instructions, shapes, trip counts of loops.

`compiled.as_text()` is the one description that every XLA backend gives. Only what counting needs
is parsed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_CALL = re.compile(r"\s*([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Instruction:
    """One line of a computation: `name = shape opcode(rest`."""

    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results this one reads."""
        return _NAME.findall(self.rest.split(")")[0])

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the text after the opcode."""
        found = re.search(pattern, self.rest)
        return found.group(1) if found else None


#: The instructions of a computation by name, in order.
Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Execution:
    """An instruction with how often it runs in one run of the program.

    Attributes:
      instruction: The instruction.
      computation: The computation that holds it.
      times: How often it runs.
      loops: Bodies of the loops around it, outermost first.
    """

    instruction: Instruction
    computation: Computation
    times: int
    loops: tuple[str, ...]

    @property
    def operands(self) -> list[Instruction]:
        """The instructions whose results this one reads."""
        return [self.computation[name] for name in self.instruction.operands]


@dataclass(frozen=True)
class HloProgram:
    """A compiled program.

    Attributes:
      computations: All computations by name.
      entry: Name of the computation that runs first.
    """

    computations: dict[str, Computation]
    entry: str

    def executions(self, callers: Container[str]) -> Iterator[Execution]:
        """All instructions that run, from the entry through loops, branches and calls.

        All branches of a conditional run here, which is an upper bound: which one is taken is only
        known at run time. A loop without a readable trip count runs once.

        Args:
          callers: Opcodes whose computation is entered too, such as "call" and "fusion".
        """
        yield from self._executions(self.entry, 1, (), callers)

    def _executions(
        self, name: str, times: int, loops: tuple[str, ...], callers: Container[str]
    ) -> Iterator[Execution]:
        computation = self.computations[name]
        for instruction in computation.values():
            yield Execution(instruction, computation, times, loops)
            if instruction.opcode == "while":
                body = str(instruction.attribute(r"body=%?([\w.\-]+)"))
                trips = self.trip_count(instruction)
                inner = times * (1 if trips is None else trips)
                yield from self._executions(body, inner, (*loops, body), callers)
                continue
            for called in self._called(instruction, callers):
                yield from self._executions(called, times, loops, callers)

    def _called(self, instruction: Instruction, callers: Container[str]) -> list[str]:
        if instruction.opcode == "conditional":
            listed = instruction.attribute(r"branch_computations=\{([^}]*)\}")
            pattern = r"%([\w.\-]+)" if listed else r"(?:true|false)_computation=%?([\w.\-]+)"
            names = re.findall(pattern, listed or instruction.rest)
        elif instruction.opcode in callers:
            names = [instruction.attribute(r"(?:calls|to_apply)=%?([\w.\-]+)")]
        else:
            names = []
        return [name for name in names if name in self.computations]

    def trip_count(self, loop: Instruction) -> int | None:
        """How often the body of a `while` runs; None where the text does not say.

        If the compiler wrote no count, it is the bound in the condition over the step in the body.
        """
        known = loop.attribute(r"known_trip_count[^0-9]*(\d+)")
        if known:
            return int(known)
        condition = self.computations[str(loop.attribute(r"condition=%?([\w.\-]+)"))]
        body = self.computations[str(loop.attribute(r"body=%?([\w.\-]+)"))]
        compared = [
            condition[name]
            for instruction in condition.values()
            if instruction.opcode == "compare"
            for name in instruction.operands
            if name in condition
        ]
        candidates = compared or condition.values()
        bounds = [_constant(one) for one in candidates if one.opcode == "constant"]
        bound = max((bound for bound in bounds if bound is not None), default=None)
        if bound is None:
            return None
        counters = [one.attribute(r"index=(\d+)") for one in compared]
        counter = next((int(index) for index in counters if index), None)
        return -(-bound // (_step(body, counter) if counter is not None else 1))


def parse_hlo(text: str) -> HloProgram:
    """Parses a compiled program.

    Args:
      text: Result of `jax.jit(f).lower(...).compile().as_text()`.

    Raises:
      ValueError: The text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    current: Computation | None = None
    entry = None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header.group(2), {})
            entry = header.group(2) if header.group(1) else entry
        # Multi-line literals contain lines that begin with a brace; a computation ends with a
        # brace alone.
        elif line.rstrip() == "}" or line.startswith("}, execution"):
            current = None
        elif current is not None and (instruction := _parse_instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text of the program has no ENTRY: expected `compiled.as_text()`")
    return HloProgram(computations, entry)


def dimensions(shape: str) -> list[int]:
    """Sizes of an array's shape such as `f32[2,3]{1,0}`; for a tuple, of its first array."""
    found = _ARRAY.search(shape)
    return [int(size) for size in found.group(2).split(",") if size] if found else []


def size_in_bytes(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    return sum(
        _bits(kind) * math.prod(int(size) for size in sizes.split(",") if size) // 8
        for kind, sizes in _ARRAY.findall(shape)
    )


def _parse_instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if not found:
        return None
    name, right = found.groups()
    end = _end_of_shape(right)
    call = _CALL.match(right[end:])
    return Instruction(name, right[:end], *call.groups()) if call else None


def _end_of_shape(text: str) -> int:
    """Index of the first space outside of brackets; shapes of tuples contain spaces."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == " " and depth == 0:
            return index
    return len(text)


def _bits(kind: str) -> int:
    """Bits of an element: the first number in `bf16` or `f8e4m3fn`; a boolean takes a byte."""
    return 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])


def _step(body: Computation, counter: int) -> int:
    """The increment of a loop's counter; 1 if it is not a plain sum."""
    value = body[[one for one in body.values() if one.opcode == "tuple"][-1].operands[counter]]
    while value.opcode in ("copy", "bitcast"):
        value = body[value.operands[0]]
    if value.opcode != "add":
        return 1
    steps = [_constant(body[name]) for name in value.operands if name in body]
    return next((step for step in steps if step), 1)


def _constant(instruction: Instruction) -> int | None:
    found = re.match(r"(-?\d+)\)", instruction.rest)
    return int(found.group(1)) if found and instruction.opcode == "constant" else None
