"""Application of a table of names and layouts, in either direction.

A table is a list of `Row`. With the abstract parameters of a component it gives one `Entry` per
parameter, which gathers the parameter from a state dict or scatters it into one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
from einops import rearrange
from flax import nnx

from flashmotion_jax.runtime.errors import UserError

from .tensors import StateDict
from .zeros import find_unwritten

#: Last part of a parameter's path here -> last part of its key in torch.
SUFFIXES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}

#: Default layout of a kernel by its rank, as an einops pattern from here to torch.
KERNELS = {2: "i o -> o i", 4: "h w i o -> o i h w", 5: "t h w i o -> o i t h w"}

FLOATS = ("float32", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      target: Path of a module here, for all of its parameters, or of one parameter. `{x}` matches a
        number.
      source: Key in the state dict, without the suffix of `SUFFIXES` for a module. `{x}` is the
        matched number; `{layer}` runs over the leading dimension of stacked parameters.
      layout: einops pattern from one layer here to its tensor; for a module, of its kernel.
      sizes: Lengths of axes that the pattern splits.
    """

    target: str
    source: str
    layout: str | None = None
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A parameter and the tensors that it corresponds to.

    Attributes:
      target: Dotted path of the parameter.
      keys: Keys of the tensors: one, or one per layer.
      is_stacked: Whether the parameter has a leading layer dimension.
      layout: einops pattern from one layer here to its tensor.
      sizes: Lengths of axes that the pattern splits.
      shape: Shape of the parameter.
      dtype: Dtype of the parameter.
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
        """The shape that each of the tensors must have."""
        shape = self.shape[1:] if self.is_stacked else self.shape
        return rearrange(np.broadcast_to(0, shape), self.layout, **self.sizes).shape

    def gather(self, source: StateDict) -> np.ndarray:
        """Makes the parameter from its tensors, which are read and cast one at a time."""
        array = np.empty(self.shape, self.dtype)
        theirs, ours = reversed(self.layout.split(" -> "))
        for layer, key in zip(self._layers(array), self.keys, strict=True):
            layer[...] = rearrange(source[key].read(), f"{theirs} -> {ours}", **self.sizes)
        return array

    def scatter(self, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yields keys and tensors made from the parameter."""
        for layer, key in zip(self._layers(array), self.keys, strict=True):
            yield key, rearrange(layer, self.layout, **self.sizes)

    def _layers(self, array: np.ndarray) -> Iterable[np.ndarray]:
        return array if self.is_stacked else (array,)


def make_entries(
    parameters: Mapping[str, nnx.Variable], table: Sequence[Row], source: StateDict | None = None
) -> list[Entry]:
    """Makes one entry per parameter.

    Args:
      parameters: Dotted path -> abstract variable.
      table: Its first matching row counts.
      source: Tensors whose axes of length one override the layouts, where the table is a guess.

    Raises:
      UserError: No row matches a parameter.
    """
    return [
        _entry(name, variable.get_value(), table, source or {})
        for name, variable in parameters.items()
    ]


def override(
    parameters: Mapping[str, nnx.Variable], table: Sequence[Row], names: Mapping[str, str]
) -> list[Row]:
    r"""Returns a table with other keys for some parameters; layouts stay.

    Args:
      parameters: Dotted path -> abstract variable.
      table: The table to change.
      names: Path, or a regular expression for several -> key, where `{layer}` runs over the layers
        and `\1` is the first group of the expression.

    Raises:
      UserError: A path matches no parameter.
    """
    rows = []
    for pattern, key in names.items():
        matches = [match for name in parameters if (match := re.fullmatch(pattern, name))]
        if not matches:
            raise UserError(f"the map names {pattern!r}; expected one of {', '.join(parameters)}")
        for match in matches:
            entry = _entry(match[0], parameters[match[0]].get_value(), table, {})
            try:
                rows.append(Row(entry.target, match.expand(key), entry.layout, entry.sizes))
            except (re.error, IndexError) as error:
                raise UserError(
                    f"the map's {key!r:.80} does not fit {pattern!r:.80}: {error}"
                ) from error
    return [*rows, *table]


def find_problems(
    entries: Sequence[Entry], source: StateDict, aliases: Sequence[str] = ()
) -> list[str]:
    """Lists every difference between a state dict and what the entries need, except values.

    Args:
      entries: Entries of one component.
      source: State dict that should hold exactly this component.
      aliases: Redundant keys that are ignored.

    Returns:
      One line per problem: missing and unused keys, wrong shapes and dtypes.
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
    """Lists the tensors of an entry that contain NaN, infinity, or zeros of a partial download.

    Tensors of other shapes or dtypes, which `find_problems` lists, are not read.
    """
    problems = []
    for key in entry.keys:
        tensor = source.get(key)
        if tensor is None or tensor.dtype not in FLOATS or tensor.shape != entry.source_shape:
            continue
        array = tensor.read()
        if not np.isfinite(array).all():
            problems.append(f"values: {key} holds NaN or infinity")
        elif zeros := find_unwritten(entry.target, array):
            problems.append(
                f"values: {key} {zeros}, as after a partial download; download it again"
            )
    return problems


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
    """Adapts a layout to tensors of another rank, by axes of length one."""
    ours, theirs = layout.split(" -> ")
    axes = re.findall(r"\(.*?\)|\S+", theirs)
    if len(axes) == rank:
        return layout
    axes = [axis for axis in axes if axis != "1"]
    # In torch they follow the two channel axes of a kernel, or the one axis of a vector.
    return f"{ours} -> {' '.join([*axes[:2], *['1'] * (rank - len(axes)), *axes[2:]])}"


def _find(name: str, table: Sequence[Row]) -> tuple[Row, str, dict[str, str]]:
    """Returns the row for a parameter, the template of its key, and the numbers to fill in."""
    module, _, leaf = name.rpartition(".")
    for row in table:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(row.target))
        if match := re.fullmatch(pattern, name):
            return row, row.source, match.groupdict()
        if leaf in SUFFIXES and (match := re.fullmatch(pattern, module)):
            return row, f"{row.source}.{SUFFIXES[leaf]}", match.groupdict()
    raise UserError(f"the table has no row for {name}")
