"""What a file that fits nothing is nearest to, and the table of names that would try it."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flashmotion_jax.checkpoints import components
from flashmotion_jax.runtime.errors import UserError

from . import adapters, text_encoder
from .mapping import Entry
from .planning import TABLES, Known, plan_part
from .recognition import Part
from .tensors import StateDict
from .wrappers import clean

#: Keys to show of a list.
SHOWN = 12

#: Places to look at, those with most keys first.
MOST_PREFIXES = 64

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)|\{\w+\}")


@dataclass(frozen=True)
class Guess:
    """A component that a file may hold.

    Attributes:
      part: The component, where its keys would begin.
      hits: Number of tensors that have its names.
      missing: Number of its modules that have none of their names.
    """

    part: Part
    hits: int
    missing: int


def describe_nearest(source: StateDict, known: Known) -> str:
    """Says which component a file is nearest to, what differs, and how to try it all the same.

    Args:
      source: All tensors of a file.
      known: What is known besides.
    """
    guess = _find_nearest({clean(key): tensor for key, tensor in source.items()})
    if guess is None:
        return "no tensor has the name of one of a known component"
    part = guess.part
    head = (
        f"nearest: {part.kind} {part.place}, whose names {guess.hits} of {len(part.tensors)} "
        "tensors have"
    )
    try:
        plan = plan_part(part, known)
    except UserError as error:
        return f"{head}\n{error}"
    missing = [entry for entry in plan.entries if not plan.source.keys() & set(entry.keys)]
    wanted = {key for entry in plan.entries for key in entry.keys}
    extra = sorted(plan.source.keys() - wanted)
    lines = [
        head,
        _listed("missing", [entry.keys[0] for entry in missing]),
        _listed("left over", extra),
        *plan.notices,
    ]
    names = _suggest(missing, {key: plan.source[key].shape for key in extra})
    table = json.dumps({"prefix": part.prefix, **names}, indent=2)
    option = part.kind.rpartition("/")[2].removesuffix("_encoder")
    lines.append(f"a --map file that would try it, with --component {option}:\n{table}")
    return "\n".join(line for line in lines if line)


def _listed(what: str, keys: Sequence[str]) -> str:
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{what} ({len(keys)}): {', '.join(keys[:SHOWN])}{more}" if keys else ""


def _find_nearest(names: StateDict) -> Guess | None:
    """Returns the component, layout and prefix that most tensors have the names of."""
    starts: Counter[str] = Counter({"": len(names)})
    for name in names:
        parts = name.split(".", 5)
        starts.update(".".join(parts[:depth]) + "." for depth in range(1, len(parts)))
    layouts = list(_layouts())
    guesses = []
    for prefix, _ in starts.most_common(MOST_PREFIXES):
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in names.items()
            if name.startswith(prefix)
        }
        for kind, layout, modules in layouts:
            wanted = set().union(*modules)
            found = {}
            for key in tensors:
                for name in (_template(key), _template(key).rpartition(".")[0]):
                    if name in wanted:
                        found[name] = found.get(name, 0) + 1
            missing = sum(found.keys().isdisjoint(names_of_one) for names_of_one in modules)
            part = Part(kind, layout, prefix, tensors)
            guesses.append(Guess(part, sum(found.values()), missing))
    best = max(guesses, key=lambda guess: (guess.hits, -guess.missing, -len(guess.part.tensors)))
    return best if best.hits else None


def _layouts() -> Iterator[tuple[str, str, list[set[str]]]]:
    """Yields every component and layout with the templates of each module's names."""
    for kind, table in TABLES.items():
        layouts = text_encoder.LAYOUTS if kind == "text_encoder" else ("original", "diffusers")
        for layout in layouts:
            rows = table.table(_default(kind), layout)
            yield kind, layout, [{_template(row.source)} for row in rows]
    # Of equal guesses the first counts, and the table has the more special kinds first.
    for name, names in reversed(adapters.NAMES.items()):
        modules = [{_template(name) for name in alternatives} for _, alternatives in names.modules]
        yield f"adapters/{name}", "flashmotion", modules


def _default(kind: str) -> Any:
    return components.component_classes(kind)[0]()


def _template(key: str) -> str:
    return _NUMBER.sub("#", key)


def _suggest(missing: Sequence[Entry], extra: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Returns the left-over names of the right shape and number that are most like the missing."""
    groups: dict[str, list[str]] = {}
    for key in extra:
        groups.setdefault(_template(key), []).append(key)
    names: dict[str, str] = {}
    for entry in missing:
        fitting = [
            template
            for template, keys in groups.items()
            if len(keys) == len(entry.keys)
            and _squeezed(extra[keys[0]]) == _squeezed(entry.source_shape)
            and keys[0].rpartition(".")[2] == entry.keys[0].rpartition(".")[2]
            and _one_number(keys, entry)
        ]
        wanted = _template(entry.keys[0])
        if near := difflib.get_close_matches(wanted, fitting, n=1, cutoff=0):
            names[re.escape(entry.target)] = near[0].replace("#", "{layer}")
            del groups[near[0]]
    return names


def _one_number(keys: Sequence[str], entry: Entry) -> bool:
    """Whether keys differ in one number alone, that of the layer."""
    return _template(keys[0]).count("#") == int(entry.is_stacked)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
