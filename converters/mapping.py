"""The one engine behind every table: names and axes of ours against names and axes of theirs.

A table is a list of `Row`; with the abstract parameters of a component it becomes one `Entry` a
parameter, which gathers the parameter from another's tensors, or scatters it into them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from einops import rearrange
from flax import nnx

from flashmotion_jax.runtime.errors import UserError

from .reader import StateDict

#: Last name of our parameters -> last name in torch.
SUFFIXES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}

#: Kernels by rank, ours -> torch's, where the table says nothing else.
KERNELS = {2: "i o -> o i", 4: "h w i o -> o i h w", 5: "t h w i o -> o i t h w"}

FLOATS = ("float32", "bfloat16", "float16", "float64")


class Row(NamedTuple):
    """One line of a table.

    Attributes:
      target: our path of a module (of all its parameters, then), or of one parameter. `{x}` stands
        for a number.
      source: their key, likewise without the suffix of `SUFFIXES` for a module. `{x}` is the
        number found, `{layer}` runs over the leading dimension of stacked parameters.
      layout: einops pattern from one layer of ours to theirs; of a module's kernel alone.
      sizes: lengths of axes that the pattern splits.
    """

    target: str
    source: str
    layout: str | None = None
    sizes: Mapping[str, int] = {}


class Entry(NamedTuple):
    """One parameter of ours, and the tensors it is made of.

    Attributes:
      target: our dotted path.
      keys: their keys: one, or one a layer.
      is_stacked: whether there is a leading layer dimension.
      layout: einops pattern, of one layer.
      sizes: lengths of axes that the pattern splits.
      shape: ours.
      dtype: ours.
    """

    target: str
    keys: tuple[str, ...]
    is_stacked: bool
    layout: str
    sizes: Mapping[str, int]
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def source_shape(self) -> tuple[int, ...]:
        """The shape each tensor of theirs must have."""
        shape = self.shape[1:] if self.is_stacked else self.shape
        return rearrange(np.broadcast_to(0, shape), self.layout, **self.sizes).shape

    def gather(self, source: StateDict) -> np.ndarray:
        """Our parameter from their tensors, read and cast one at a time."""
        array = np.empty(self.shape, self.dtype)
        theirs, ours = reversed(self.layout.split(" -> "))
        for layer, key in zip(self._layers(array), self.keys, strict=True):
            layer[...] = rearrange(source[key].read(), f"{theirs} -> {ours}", **self.sizes)
        return array

    def scatter(self, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Their keys and tensors from our parameter."""
        for layer, key in zip(self._layers(array), self.keys, strict=True):
            yield key, rearrange(layer, self.layout, **self.sizes)

    def _layers(self, array: np.ndarray) -> Iterable[np.ndarray]:
        return array if self.is_stacked else (array,)


def make_entries(
    parameters: Mapping[str, nnx.Variable], table: Sequence[Row], source: StateDict | None = None
) -> list[Entry]:
    """One entry a parameter.

    Args:
      parameters: dotted path to abstract variable.
      table: the first row that fits is taken.
      source: where the table is a guess: tensors whose number of axes of length one is followed.

    Raises:
      UserError: a parameter that no row speaks of.
    """
    return [
        _entry(name, variable.get_value(), table, source or {})
        for name, variable in parameters.items()
    ]


def override(
    parameters: Mapping[str, nnx.Variable], table: Sequence[Row], names: Mapping[str, str]
) -> list[Row]:
    r"""The table with other keys for some parameters, whose layout stays.

    Args:
      parameters: dotted path to abstract variable.
      table: the rows to put others before.
      names: our path, or a regular expression for several, to their key; `{layer}` runs over the
        layers and `\1` is the first group of the expression.

    Raises:
      UserError: a path that fits no parameter.
    """
    rows = []
    for pattern, key in names.items():
        matches = [match for name in parameters if (match := re.fullmatch(pattern, name))]
        if not matches:
            raise UserError(
                f"the map speaks of {pattern!r}, which is none of {', '.join(parameters)}"
            )
        for match in matches:
            entry = _entry(match[0], parameters[match[0]].get_value(), table, {})
            rows.append(Row(entry.target, match.expand(key), entry.layout, entry.sizes))
    return [*rows, *table]


def find_problems(
    entries: Sequence[Entry], source: StateDict, aliases: Sequence[str] = ()
) -> list[str]:
    """Everything that keeps `source` from being exactly what `entries` need, but for values.

    Args:
      entries: of one component.
      source: all tensors that are said to be the component.
      aliases: keys that may be there but say nothing new.

    Returns:
      One line per problem.
    """
    wanted = {key: entry for entry in entries for key in entry.keys}
    problems = [
        f"missing: {key} (for {entry.target})" for key, entry in wanted.items() if key not in source
    ]
    problems += [f"unused: {key}" for key in source if key not in wanted and key not in aliases]
    for key in wanted.keys() & source.keys():
        tensor, expected = source[key], wanted[key].source_shape
        if tensor.shape != expected:
            problems.append(f"shape: {key} is {tensor.shape}, expected {expected}")
        if tensor.dtype not in FLOATS:
            problems.append(f"dtype: {key} is {tensor.dtype}, expected one of {', '.join(FLOATS)}")
    return sorted(problems)


def find_bad_values(entry: Entry, source: StateDict) -> list[str]:
    """One line for each tensor of an entry that is there and holds NaN or infinity."""
    return [
        f"values: {key} holds NaN or infinity"
        for key in entry.keys
        if key in source
        and source[key].dtype in FLOATS
        and not np.isfinite(source[key].read()).all()
    ]


def _entry(
    name: str, array: jax.ShapeDtypeStruct, table: Sequence[Row], source: StateDict
) -> Entry:
    row, template, numbers = _find(name, table)
    is_stacked = "{layer}" in template
    rank = array.ndim - is_stacked
    is_kernel = name.endswith(".kernel")
    layout = row.layout if is_kernel or template == row.source else None
    sizes = row.sizes if layout else {}
    if layout is None:
        axes = " ".join("abc"[:rank])
        layout = KERNELS[rank] if is_kernel else f"{axes} -> {axes}"
    keys = tuple(
        template.format(layer=layer, **numbers)
        for layer in range(array.shape[0] if is_stacked else 1)
    )
    if keys[0] in source:
        layout = _with_rank(layout, len(source[keys[0]].shape))
    return Entry(name, keys, is_stacked, layout, sizes, array.shape, np.dtype(array.dtype))


def _with_rank(layout: str, rank: int) -> str:
    """The layout with as many axes of length one as give their tensor `rank` axes."""
    ours, theirs = layout.split(" -> ")
    if len(theirs.split()) == rank:
        return layout
    axes = [axis for axis in theirs.split() if axis != "1"]
    # Where torch has them: after the two channel axes of a kernel, or after the one of a vector.
    return f"{ours} -> {' '.join([*axes[:2], *['1'] * (rank - len(axes)), *axes[2:]])}"


def _find(name: str, table: Sequence[Row]) -> tuple[Row, str, dict[str, str]]:
    """The row for a parameter, its template of their key, and the numbers to fill in."""
    module, _, leaf = name.rpartition(".")
    for row in table:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(row.target))
        if match := re.fullmatch(pattern, name):
            return row, row.source, match.groupdict()
        if leaf in SUFFIXES and (match := re.fullmatch(pattern, module)):
            return row, f"{row.source}.{SUFFIXES[leaf]}", match.groupdict()
    raise UserError(f"the table has no row for {name}")
