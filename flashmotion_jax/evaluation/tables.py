"""The tables of an evaluation: of its groups, and in the layout of the paper's 1, 7 and 8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flashmotion_jax.evaluation import published
from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.evaluation.figures import FIGURES
from flashmotion_jax.evaluation.report import Rows

_CARE = (
    "The paper states neither the version of its segmenter, nor how it averages, nor whether frame "
    "0 counts, nor how FID resizes frames: compare with care. A Frechet distance falls with N: it "
    "compares at the same N and number of frames alone."
)


class Table(NamedTuple):
    """A table with what to say of it.

    Attributes:
      title: above it.
      header: of the columns.
      rows: as many cells each.
      note: below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def to_markdown(self) -> str:
        """With its title, ends with a line break."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        return f"## {self.title}\n\n{text}" + f"\n{self.note}\n" * bool(self.note)


def table_of_groups(rows: Rows) -> Table:
    """A line for each group, a column for each figure, the interval and N in each cell."""
    names = _names(rows)
    header = ("objects", *(FIGURES[name].heading for name in names))
    body = [
        (group, *(cell(name, figures.get(name)) for name in names))
        for group, figures in rows.items()
    ]
    about = "; ".join(
        f"{FIGURES[name].heading}: {FIGURES[name].about}"
        + (f" ({FIGURES[name].better} is better)" if FIGURES[name].better else "")
        for name in names
    )
    return Table(
        "By number of objects",
        header,
        tuple(body),
        f"Intervals are of 95 % over videos, N of them. {about}. Blur raises IoU: look at the "
        "videos, too.",
    )


def tables_of_the_paper(bench: str, rows: Rows, name: str = "this evaluation") -> list[Table]:
    """Tables in the layout of the paper's, its own rows marked as published.

    Args:
      bench: of the evaluation.
      rows: group by number of objects, or "all" -> figures.
      name: of the method, in the first row.

    Returns:
      Table 1, and of FlashBench 7 and 8; nothing of a bench that the paper has not.
    """
    if bench not in published.BENCHES:
        return []
    tables = [_like_the_paper("Table 1", published.BENCHES, {bench: "all"}, rows, name)]
    if bench == "flashbench":
        for title, groups in (("Table 7", ["1", "2", "3"]), ("Table 8", ["4", "5", "6+"])):
            tables.append(_like_the_paper(title, groups, {g: g for g in groups}, rows, name))
    return tables


def cell(name: str, figure: Interval | None, with_interval: bool = True) -> str:
    """A figure in the unit that it is shown in, its interval and N; a dash for none."""
    if figure is None or not figure.count or not np.isfinite(figure.estimate):
        return "-"
    about = FIGURES[name]
    estimate, low, high = (f"{about.scale * value:.{about.digits}f}" for value in figure[:3])
    if not with_interval:
        return estimate
    bounds = f" [{low}, {high}]" if np.isfinite(figure.low) else ""
    return f"{estimate}{bounds} (N {figure.count})"


def _names(rows: Rows) -> Sequence[str]:
    there = {name for figures in rows.values() for name in figures}
    return [name for name in FIGURES if name in there]


def _like_the_paper(
    title: str, columns: Sequence[str], groups: Mapping[str, str], rows: Rows, name: str
) -> Table:
    heads = [
        f"{_head(column)} {what}"
        for column in columns
        for what in ("FID (lower)", "FVD (lower)", "M/B IoU % (higher)")
    ]
    has_cost = columns[0] in published.BENCHES
    header = ("method", *heads, *(("denoising (s)", "parameters (B)") if has_cost else ()))
    ours = [name]
    for column in columns:
        ours += _ours(rows.get(groups.get(column, ""), {}))
    body = [(*ours, *("-", "-")[: 2 * has_cost])]
    for method in published.methods():
        if method in published.SECTIONS:
            section = f"*{published.SECTIONS[method]}*"
            body.append((section, *("",) * (len(header) - 1)))
            if method in published.OUT_OF_MEMORY:
                missing = (f"{published.OUT_OF_MEMORY[method]}, published", "out of memory")
                body.append((*missing, *("",) * (len(header) - 2)))
        cells: Iterable[str] = (
            value for column in columns for value in published.figures_of(method, column)
        )
        cost = published.cost_of(method) if has_cost else ()
        body.append((f"{method}, published", *cells, *cost))
    return Table(f"{title} of the paper", header, tuple(body), _CARE)


def _head(column: str) -> str:
    names = {"flashbench": "FlashBench", "magicbench": "MagicBench", "davis": "DAVIS"}
    return names.get(column, f"{column.replace('6+', '> 5')} objects")


def _ours(figures: Mapping[str, Interval]) -> list[str]:
    mask, box = (figures.get(name) for name in ("mask_iou", "box_iou"))
    both = "-"
    if mask is not None and box is not None and mask.count:
        values = [cell(n, f, False) for n, f in (("mask_iou", mask), ("box_iou", box))]
        both = f"{'/'.join(values)} (N {mask.count})"
    return [cell("fid", figures.get("fid")), cell("fvd", figures.get("fvd")), both]
