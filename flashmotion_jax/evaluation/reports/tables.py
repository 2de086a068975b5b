"""The tables of an evaluation: of its groups, and in the layout of the paper's 1, 7 and 8."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.evaluation.metrics import METRICS
from flashmotion_jax.evaluation.reports import published
from flashmotion_jax.evaluation.reports.json_tables import Rows
from flashmotion_jax.runtime.tables import markdown_table

_CARE = (
    "The paper states neither the version of its segmenter, nor how it averages, nor whether frame "
    "0 counts, nor how FID resizes frames: compare with care. A Fréchet distance falls with N, so "
    "compare it only at the same N and number of frames."
)


@dataclass(frozen=True)
class Table:
    """A table with its title and a note.

    Attributes:
      title: Title above it.
      header: Headings of the columns.
      rows: Cells, as many in each row as there are headings.
      note: Text below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def transposed(self) -> Table:
        """The same with a row for each column, for a page that is narrower than the table."""
        header, *rows = zip(self.header, *self.rows, strict=True)
        return Table(self.title, tuple(header), tuple(map(tuple, rows)), self.note)

    def to_markdown(self) -> str:
        """Markdown that ends with a line break."""
        table = markdown_table(self.header, self.rows)
        return f"## {self.title}\n\n{table}" + f"\n{self.note}\n" * bool(self.note)


def table_of_groups(rows: Rows) -> Table:
    """A line for each group, a column for each metric, the interval and N in each cell."""
    names = [name for name in METRICS if any(name in numbers for numbers in rows.values())]
    metrics = [METRICS[name] for name in names]
    body = [
        (group, *(cell(name, numbers.get(name)) for name in names))
        for group, numbers in rows.items()
    ]
    return Table(
        "By number of objects",
        ("objects", *(metric.heading for metric in metrics)),
        tuple(body),
        "In brackets: 95 % intervals over N videos. Blur raises IoU: look at the videos, too.",
    )


def explanations(rows: Rows) -> list[tuple[str, str]]:
    """Heading and meaning of each metric that a table of groups has, in its order."""
    metrics = [METRICS[name] for name in METRICS if any(name in one for one in rows.values())]
    return [
        (one.heading, one.about + (f"; {one.better} is better" if one.better else ""))
        for one in metrics
    ]


def tables_of_the_paper(bench: str, rows: Rows, name: str = "this evaluation") -> list[Table]:
    """Tables in the layout of the paper's, beside its own rows, which are marked as published.

    Args:
      bench: Name of the benchmark.
      rows: Group by number of objects, or "all" -> numbers.
      name: Name of the method, in the first row.

    Returns:
      Table 1, and for FlashBench 7 and 8; nothing for a benchmark that the paper lacks.
    """
    if bench not in published.BENCHES:
        return []
    tables = [_like_the_paper("Table 1", published.BENCHES, {bench: "all"}, rows, name)]
    if bench == "flashbench":
        for title, groups in (("Table 7", ["1", "2", "3"]), ("Table 8", ["4", "5", "6+"])):
            tables.append(_like_the_paper(title, groups, {g: g for g in groups}, rows, name))
    return tables


def cell(name: str, number: Interval | None, with_interval: bool = True) -> str:
    """A number of a metric in its displayed unit, its interval and N; a dash for none."""
    if number is None or not number.count or not np.isfinite(number.estimate):
        return "-"
    metric = METRICS[name]
    estimate, low, high = (f"{value:.{metric.digits}f}" for value in number.scaled(metric.scale))
    if not with_interval:
        return estimate
    bounds = f" [{low}, {high}]" if np.isfinite(number.low) else ""
    return f"{estimate}{bounds} (N {number.count})"


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
            value
            for column in columns
            for value in dataclasses.astuple(published.numbers_of(method, column))
        )
        cost = published.cost_of(method) if has_cost else ()
        body.append((f"{method}, published", *cells, *cost))
    return Table(f"{title} of the paper", header, tuple(body), _CARE)


def _head(column: str) -> str:
    names = {"flashbench": "FlashBench", "magicbench": "MagicBench", "davis": "DAVIS"}
    return names.get(column, f"{column.replace('6+', '> 5')} objects")


def _ours(numbers: Mapping[str, Interval]) -> list[str]:
    mask, box = (numbers.get(name) for name in ("mask_iou", "box_iou"))
    both = "-"
    if mask is not None and box is not None and mask.count:
        values = [cell(n, f, False) for n, f in (("mask_iou", mask), ("box_iou", box))]
        both = f"{'/'.join(values)} (N {mask.count})"
    return [cell("fid", numbers.get("fid")), cell("fvd", numbers.get("fvd")), both]
