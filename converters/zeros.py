"""Zeros that nobody wrote: what an unfinished download leaves in a file of full size.

Zeros that were written begin and end where a row does: new output projections, padding of a
vocabulary, dead channels. Or they are in the same columns of every row: new input channels. The
zeros of a download begin and end anywhere.
"""

from __future__ import annotations

import re

import numpy as np

#: Zeros at an end of a tensor that are looked at, and those of a part of a row before whole rows of
#: zeros that are too many for a coincidence.
MIN_END = 64  # float8 makes zeros of small values, one by one
MIN_PART = 4

#: Bytes of zeros within a tensor that are looked for; identities in convolutions have shorter ones.
MIN_HOLE = 2**14

#: Parameters that are zeros before training: outputs of adapters, of residual branches, and of the
#: DiT and the VAE's attention in the original code.
_MAY_BE_ZERO = re.compile(r"(^|\.)(projections?|conv2|zero\w*|out\w*|proj|head|lora_\w+)(\.|$)")


def find_unwritten(target: str, array: np.ndarray) -> str | None:
    """Describes zeros of a tensor that are no weights.

    Args:
      target: Path of the parameter that the tensor becomes, or becomes a part of.
      array: The tensor. Vectors are not examined, as biases may have any zeros.

    Returns:
      What is zero, or None.
    """
    if sum(size > 1 for size in array.shape) < 2:
        return None
    values = array.reshape(-1)
    runs = []
    if not values[:MIN_END].any():
        stop = _first_nonzero(values)
        if stop == values.size:
            is_weight = target.endswith((".kernel", ".embedding"))
            return "is all zeros" if is_weight and not _MAY_BE_ZERO.search(target) else None
        runs.append((0, stop))
    if not values[-MIN_END:].any():
        runs.append((values.size - _first_nonzero(values[::-1]), values.size))
    rows = values.reshape(next(size for size in array.shape if size > 1), -1)
    for start, stop in [*runs, *_holes(values)]:
        length = stop - start
        is_cut = _cuts_a_row(rows, start, length)
        if is_cut or _cuts_a_row(rows[::-1, ::-1], values.size - stop, length):
            return f"is zeros from value {start:,} to {stop:,} of {values.size:,}"
    return None


def _holes(values: np.ndarray) -> list[tuple[int, int]]:
    """Runs of at least `MIN_HOLE` bytes of zeros within an array; samples find them."""
    stride = MIN_HOLE // values.itemsize // 2
    runs: list[tuple[int, int]] = []
    sampled = np.flatnonzero(values[::stride] == 0) * stride
    # A run of that length holds two samples that follow each other.
    for sample in sampled[:-1][np.diff(sampled) == stride]:
        if runs and sample < runs[-1][1]:
            continue
        start = sample - _first_nonzero(values[:sample][::-1])
        stop = sample + _first_nonzero(values[sample:])
        if start > 0 and stop < values.size and (stop - start) * values.itemsize >= MIN_HOLE:
            runs.append((start, stop))
    return runs


def _first_nonzero(values: np.ndarray) -> int:
    """Index of the first value that is not zero, or the number of values."""
    step = 2**12
    for start in range(0, values.size, step):
        found = np.flatnonzero(values[start : start + step])
        if found.size:
            return start + int(found[0])
    return values.size


def _cuts_a_row(rows: np.ndarray, start: int, length: int) -> bool:
    """Whether zeros begin within a row, in columns that are not zeros in the row before."""
    row, column = divmod(start, rows.shape[1])
    part = rows.shape[1] - column
    if column == 0 or min(part, length) < min(MIN_PART, -(-rows.shape[1] // 2)):
        return False
    if row == 0:
        return length >= part + rows.shape[1]  # the whole next row, too
    return bool(rows[row - 1, column : column + length].any())
