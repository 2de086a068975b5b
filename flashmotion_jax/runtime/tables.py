"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that ends with a line break.

    Args:
      header: one heading for each column.
      rows: one cell for each column, as text.

    Raises:
      ValueError: A row has more or fewer cells than the header.
    """
    lines = [header, ["---"] * len(header)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells; expected {len(header)}: {row}")
        lines.append(row)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
