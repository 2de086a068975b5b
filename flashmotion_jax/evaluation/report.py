"""Tables of measured systems, to read (Markdown) and to compute with (JSON)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.runtime.errors import UserError

Rows = Mapping[str, Mapping[str, Interval]]
"""Name of a system -> name of a figure -> the figure with its interval."""


def to_markdown(rows: Rows) -> str:
    """A table with a line for each system: estimate, interval and N in each cell.

    Blur raises IoU, so a table with an IoU must also show `sharpness` and a distance of videos.

    Args:
      rows: figures of systems; one that a system lacks, or that is NaN, is shown as a dash.

    Returns:
      Markdown that ends with a line break.

    Raises:
      UserError: there are no rows, or an IoU stands without `sharpness` or `video_distance`.
    """
    columns = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    if not columns:
        raise UserError("no rows: expected at least one system with one figure")
    missing = {"sharpness", "video_distance"} - set(columns)
    if missing and any(name.endswith("iou") for name in columns):
        raise UserError(
            f"a table of {', '.join(columns)} lacks {' and '.join(sorted(missing))}: blur raises "
            "IoU, so add them beside it"
        )
    lines = [["system", *columns], ["---"] * (len(columns) + 1)]
    for system, figures in rows.items():
        lines.append([system, *(_cell(figures.get(name)) for name in columns)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_json(rows: Rows) -> str:
    """The same as indented JSON: system -> figure -> estimate, low, high, count; null for NaN."""
    return json.dumps(to_plain(rows), indent=2) + "\n"


def to_plain(rows: Rows) -> dict[str, dict[str, dict[str, float | None]]]:
    """What `to_json` writes, as part of a larger file."""
    return {
        system: {
            name: {key: _finite(value) for key, value in figure._asdict().items()}
            for name, figure in figures.items()
        }
        for system, figures in rows.items()
    }


def _cell(figure: Interval | None) -> str:
    if figure is None or math.isnan(figure.estimate):
        return "-"
    if math.isnan(figure.low):
        return f"{figure.estimate:.3g} (N {figure.count})"
    return f"{figure.estimate:.3g} [{figure.low:.3g}, {figure.high:.3g}] (N {figure.count})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
