"""Plots of the tables of the documentation, in the colors of the site's light and dark theme."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+")
_COLORS = {
    "light": ("#1f2328", "#d0d7de", ("#2f6fb0", "#d98032", "#5a9e6f")),
    "dark": ("#ced6dd", "#48566b", ("#6fa8dc", "#e0a060", "#7fbf8f")),
}


def numbers(cell: str) -> list[float]:
    """The numbers of a cell: `.44 [.41, .47] (N 16)` has three, `4.2, 1.4, 0.0` too."""
    cell = re.sub(r"\(.*?\)", "", cell).replace("**", "")
    return [float(text.replace(",", "")) for text in _NUMBER.findall(cell)]


def parse(spec: str, header: list[str]) -> tuple[str, list[int]]:
    """Kind of a plot and positions of its columns: `intervals of box IoU; sharpness`.

    Raises:
      ValueError: There is no such kind or column.
    """
    kind, _, names = spec.partition(" of ")
    wanted = names.split("; ")
    if kind not in ("intervals", "bars") or not set(wanted) <= set(header):
        raise ValueError(f"plot {spec!r}: expected 'intervals' or 'bars' of columns of {header}")
    return kind, [header.index(name) for name in wanted]


def draw(spec: str, rows: list[list[str]], folder: Path, theme: str) -> str:
    """Draws columns of a table: intervals, or bars with a color for each number of a cell.

    Args:
      spec: What follows `plot:` in the page.
      rows: Cells of the table; the first row is the header, the first column labels the rows.
      folder: Where the plot is written.
      theme: "light" or "dark".

    Returns:
      Name of the SVG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kind, columns = parse(spec, rows[0])
    ink, grid, colors = _COLORS[theme]
    name = f"{hashlib.sha256(repr((spec, rows)).encode()).hexdigest()[:12]}-{theme}.svg"
    style = {"svg.hashsalt": "docs", "text.color": ink, "axes.edgecolor": grid, "xtick.color": ink}
    with plt.rc_context(style | {"ytick.color": ink, "axes.labelcolor": ink, "font.size": 11}):
        height = 0.9 + 0.3 * (len(rows) - 1)
        figure, panels = plt.subplots(
            1, len(columns), figsize=(8.5, height), sharey=True, squeeze=False, layout="constrained"
        )
        for panel, column in zip(panels[0], columns, strict=True):
            for position, row in enumerate(rows[1:]):
                values = numbers(row[column])
                if kind == "intervals" and values:
                    low, high = values[1:3] if len(values) >= 3 else values[:1] * 2
                    panel.plot([low, high], [position] * 2, color=colors[0], lw=2, alpha=0.55)
                    panel.plot(values[0], position, "o", color=colors[0], ms=5)
                for index, value in enumerate(values if kind == "bars" else ()):
                    offset, thickness = (index - (len(values) - 1) / 2) / 4, 0.8 / len(values)
                    panel.barh(position + offset, value, thickness, color=colors[index % 3])
            title, _, series = rows[0][column].partition(": ")
            panel.set_title(title, fontsize=12)
            if kind == "bars" and series:
                handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in colors]
                panel.legend(handles, series.split(", "), frameon=False)
            panel.grid(axis="x", color=grid, lw=0.6)
            panel.set_axisbelow(True)
            panel.spines[["top", "right", "left"]].set_visible(False)
            panel.tick_params(length=0)
        panels[0][0].set_yticks(range(len(rows) - 1), [row[0].strip("`") for row in rows[1:]])
        panels[0][0].set_ylim(len(rows) - 1.4, -0.6)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / name, transparent=True, metadata={"Date": None})
        plt.close(figure)
    return name
