"""How many bytes a compiled program moves between a device's memory and its units.

Counted per instruction as it stands after fusion: what it reads and what it writes. Of a large
array that is read or written a slice at a time, as a scan does with a stack of layers, only the
slices count. Caches keep some of it, so this is a bound from above.
"""

from __future__ import annotations

import re

from flashmotion_jax.perf.hlo_text import (
    Computation,
    Instruction,
    read_computations,
    size_in_bytes,
    trip_count,
)

#: Instructions that name memory and move none.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "bitcast-convert",
    "after-all",
    "partition-id",
    "replica-id",
    "iota",
    "async-start",
    "async-update",
    "async-done",
    "copy-done",
}
_SLICES = {"dynamic-slice", "slice", "gather"}

#: An array that a TPU's compiler holds on the chip, in another memory space than the large one.
_ON_CHIP = re.compile(r"\b\w+\[[\d,]*\]\{[^}]*S\([1-9]\)[^}]*\}")


def count_traffic(text: str) -> int:
    """Bytes read and written by one device in one run.

    Args:
      text: of `jax.jit(f).lower(...).compile().as_text()`.

    Raises:
      UserError: it is no such text.
    """
    computations, entry = read_computations(text)
    return _of_computation(computations, entry)


def _of_computation(computations: dict[str, Computation], name: str) -> int:
    total = 0
    for instruction in computations[name].values():
        opcode = instruction.opcode
        if opcode == "while":
            body = str(instruction.attribute(r"body=%?([\w.\-]+)"))
            trips = trip_count(computations, instruction)
            total += (1 if trips is None else trips) * _of_computation(computations, body)
        elif opcode == "conditional":
            total += sum(
                _of_computation(computations, branch)
                for branch in _branches(instruction)
                if branch in computations
            )
        elif opcode == "call":
            called = str(instruction.attribute(r"to_apply=%?([\w.\-]+)"))
            total += _of_computation(computations, called)
        elif opcode not in _FREE and not opcode.endswith("-done"):
            total += _of_instruction(computations, computations[name], instruction)
    return total


def _branches(instruction: Instruction) -> list[str]:
    listed = instruction.attribute(r"branch_computations=\{([^}]*)\}")
    pattern = r"%([\w.\-]+)" if listed else r"(?:true|false)_computation=%?([\w.\-]+)"
    return re.findall(pattern, listed or instruction.rest)


def _of_instruction(
    computations: dict[str, Computation], around: Computation, instruction: Instruction
) -> int:
    operands = [around[name] for name in instruction.operands if name in around]
    result = _bytes(instruction.shape)
    if instruction.opcode in _SLICES:
        return 2 * result
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _bytes(operands[1].shape)
    if instruction.opcode != "fusion":
        return result + sum(_bytes(operand.shape) for operand in operands)
    body = computations[str(instruction.attribute(r"calls=%?([\w.\-]+)"))]
    parameters = {
        int(re.match(r"\d+", one.rest).group()): one  # pyrefly: ignore[missing-attribute]
        for one in body.values()
        if one.opcode == "parameter"
    }
    reads = sum(
        _read_of(body, parameters[index], _bytes(operand.shape))
        for index, operand in enumerate(operands)
        if index in parameters
    )
    return reads + _written(body, result)


def _read_of(body: Computation, parameter: Instruction, whole: int) -> int:
    """Bytes of a fusion's operand that it reads: the slices, where it takes nothing else."""
    names = {parameter.name}
    read = 0
    for one in body.values():
        if not names & set(one.operands):
            continue
        if one.opcode in ("bitcast", "copy", "convert"):
            names.add(one.name)  # an array by another name
        elif one.opcode in _SLICES:
            read += _bytes(one.shape)
        elif one.opcode == "dynamic-update-slice" and one.operands[0] in names:
            continue  # written in place
        else:
            return whole
    return min(read, whole)


def _written(body: Computation, result: int) -> int:
    """Bytes that a fusion writes: the slice, where it updates an array in place."""
    updates = [one for one in body.values() if one.opcode == "dynamic-update-slice"]
    whole = sum(_bytes(one.shape) for one in updates)
    if not updates or whole > result:
        return result
    return result - whole + sum(_bytes(body[one.operands[1]].shape) for one in updates)


def _bytes(shape: str) -> int:
    return size_in_bytes(_ON_CHIP.sub("", shape))
