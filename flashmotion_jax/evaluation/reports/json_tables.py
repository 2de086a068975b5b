"""Numbers of systems or groups as JSON, and as a Markdown table of systems."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.runtime.tables import markdown_table

Rows = Mapping[str, Mapping[str, Interval]]
"""Name of a system or group -> name of a metric -> its interval."""


def to_markdown(rows: Rows) -> str:
    """A table with a line for each system, and estimate, interval and N in each cell.

    Blur raises IoU, so a table with an IoU must also show `sharpness` and a distance of videos.

    Args:
      rows: Numbers of systems; one that a system lacks, or that is NaN, becomes a dash.

    Returns:
      Markdown that ends with a line break.

    Raises:
      ValueError: There are no rows, or an IoU lacks `sharpness` or `video_distance` beside it.
    """
    columns = list(dict.fromkeys(name for numbers in rows.values() for name in numbers))
    if not columns:
        raise ValueError("no rows: expected at least one system with one metric")
    missing = {"sharpness", "video_distance"} - set(columns)
    if missing and any(name.endswith("iou") for name in columns):
        raise ValueError(
            f"a table of {', '.join(columns)} lacks {' and '.join(sorted(missing))}: blur raises "
            "IoU, so add them beside it"
        )
    lines = [
        [system, *(_cell(numbers.get(name)) for name in columns)]
        for system, numbers in rows.items()
    ]
    return markdown_table(["system", *columns], lines)


def to_json(rows: Rows) -> str:
    """Indented JSON: system -> metric -> estimate, low, high, count; null for NaN."""
    return json.dumps(to_plain(rows), indent=2) + "\n"


def to_plain(rows: Rows) -> dict[str, dict[str, dict[str, float | None]]]:
    """The contents of `to_json`, as a part of a larger file."""
    return {
        system: {
            name: {key: _finite(value) for key, value in dataclasses.asdict(number).items()}
            for name, number in numbers.items()
        }
        for system, numbers in rows.items()
    }


def _cell(number: Interval | None) -> str:
    if number is None or math.isnan(number.estimate):
        return "-"
    if math.isnan(number.low):
        return f"{number.estimate:.3g} (N {number.count})"
    return f"{number.estimate:.3g} [{number.low:.3g}, {number.high:.3g}] (N {number.count})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
