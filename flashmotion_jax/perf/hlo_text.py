"""Reads the text of a compiled program: computations, instructions, shapes, how often loops run.

`compiled.as_text()` is the one description that all of XLA's backends give; only what counting
needs is read of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from flashmotion_jax.runtime.errors import UserError

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
        """Names of the instructions that this one reads."""
        return _NAME.findall(self.rest.split(")")[0])

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in what follows the opcode."""
        found = re.search(pattern, self.rest)
        return found.group(1) if found else None


Computation = dict[str, Instruction]


def read_computations(text: str) -> tuple[dict[str, Computation], str]:
    """All computations by name, each its instructions by name in order, and the entry's name.

    Raises:
      UserError: the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    current: Computation | None = None
    entry = None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header.group(2), {})
            entry = header.group(2) if header.group(1) else entry
        # Literals over several lines hold lines that begin with a brace: an end is a brace alone.
        elif line.rstrip() == "}" or line.startswith("}, execution"):
            current = None
        elif current is not None and (instruction := _read_instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise UserError("the text of the program has no ENTRY: expected `compiled.as_text()`")
    return computations, entry


def _read_instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if not found:
        return None
    name, right = found.groups()
    end = _end_of_shape(right)
    call = _CALL.match(right[end:])
    return Instruction(name, right[:end], *call.groups()) if call else None


def _end_of_shape(text: str) -> int:
    """Where the first space outside of brackets is; shapes of tuples hold spaces."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == " " and depth == 0:
            return index
    return len(text)


def dimensions(shape: str) -> list[int]:
    """The sizes of an array's shape such as `f32[2,3]{1,0}`; of a tuple, those of its first."""
    found = _ARRAY.search(shape)
    return [int(size) for size in found.group(2).split(",") if size] if found else []


def size_in_bytes(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    return sum(
        _bits(kind) * math.prod(int(size) for size in sizes.split(",") if size) // 8
        for kind, sizes in _ARRAY.findall(shape)
    )


def _bits(kind: str) -> int:
    """Bits of an element: `bf16` and `f8e4m3fn` name theirs first, a truth value takes a byte."""
    return 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])


def trip_count(computations: dict[str, Computation], loop: Instruction) -> int | None:
    """How often the body of a `while` runs; None where the text does not tell.

    Where the compiler wrote no count, it is the bound in the condition over the step in the body.
    """
    known = loop.attribute(r"known_trip_count[^0-9]*(\d+)")
    if known:
        return int(known)
    condition = computations[str(loop.attribute(r"condition=%?([\w.\-]+)"))]
    body = computations[str(loop.attribute(r"body=%?([\w.\-]+)"))]
    compared = [
        condition[name]
        for instruction in condition.values()
        if instruction.opcode == "compare"
        for name in instruction.operands
        if name in condition
    ]
    bounds = [_constant(one) for one in compared or condition.values() if one.opcode == "constant"]
    bound = max((bound for bound in bounds if bound is not None), default=None)
    if bound is None:
        return None
    counters = [one.attribute(r"index=(\d+)") for one in compared]
    counter = next((int(index) for index in counters if index), None)
    return -(-bound // (_step(body, counter) if counter is not None else 1))


def _step(body: Computation, counter: int) -> int:
    """By how much a body raises the loop's counter; 1 where it is not a plain sum."""
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
