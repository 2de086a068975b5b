"""Counts the bytes that a compiled program moves between a device's memory and its compute units.

Each instruction counts as it stands after fusion: what it reads and what it writes. If a large
array is read or written a slice at a time, as a scan does with stacked layers, only the slices
count. This is an upper bound, since caches keep some of it.
"""

from __future__ import annotations

import re

from flashmotion_jax.perf.hlo import Computation, Execution, HloProgram, Instruction, size_in_bytes

#: Instructions that move no bytes themselves; those inside loops and calls count on their own.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "bitcast-convert"),
    *("after-all", "partition-id", "replica-id", "iota", "async-start", "async-update"),
    *("while", "conditional", "call"),
}
_SLICES = {"dynamic-slice", "slice", "gather"}

#: An array that a TPU's compiler keeps on the chip: its memory space is not 0, that of the HBM.
_ON_CHIP = re.compile(r"\b\w+\[[\d,]*\]\{[^}]*S\([1-9]\)[^}]*\}")


def count_traffic(program: HloProgram) -> int:
    """Bytes that one device reads and writes in one run of a program."""
    return sum(
        execution.times * _traffic(execution, program.computations)
        for execution in program.executions(("call",))
        if execution.instruction.opcode not in _FREE
        and not execution.instruction.opcode.endswith("-done")
    )


def _traffic(execution: Execution, computations: dict[str, Computation]) -> int:
    instruction = execution.instruction
    known = execution.computation
    operands = [known[name] for name in instruction.operands if name in known]
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
        _bytes_read(body, parameters[index], _bytes(operand.shape))
        for index, operand in enumerate(operands)
        if index in parameters
    )
    return reads + _bytes_written(body, result)


def _bytes_read(body: Computation, parameter: Instruction, whole: int) -> int:
    """Bytes of an operand that a fusion reads: its slices, if it uses nothing else of it."""
    names = {parameter.name}
    read = 0
    for one in body.values():
        if not names & set(one.operands):
            continue
        if one.opcode in ("bitcast", "copy", "convert"):
            names.add(one.name)  # the same array under another name
        elif one.opcode in _SLICES:
            read += _bytes(one.shape)
        elif one.opcode == "dynamic-update-slice" and one.operands[0] in names:
            continue  # updated in place
        else:
            return whole
    return min(read, whole)


def _bytes_written(body: Computation, result: int) -> int:
    """Bytes that a fusion writes: the slice, if it updates an array in place."""
    updates = [one for one in body.values() if one.opcode == "dynamic-update-slice"]
    whole = sum(_bytes(one.shape) for one in updates)
    if not updates or whole > result:
        return result
    return result - whole + sum(_bytes(body[one.operands[1]].shape) for one in updates)


def _bytes(shape: str) -> int:
    return size_in_bytes(_ON_CHIP.sub("", shape))
