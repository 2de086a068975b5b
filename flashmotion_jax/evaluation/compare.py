"""`flashmotion evaluate compare A.json B.json`: which differences of two results are significant.

The same videos are drawn for both (paired bootstrap), so what makes a video hard for both cancels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flashmotion_jax.evaluation.bootstrap import Interval, interval, paired_difference
from flashmotion_jax.evaluation.figures import DISTANCES, FIGURES
from flashmotion_jax.evaluation.report import to_plain
from flashmotion_jax.evaluation.scoring import STATISTICS, rows_of
from flashmotion_jax.evaluation.tables import Table, cell
from flashmotion_jax.runtime.errors import UserError

#: More draws than elsewhere: the ends of these intervals are what is asked.
_RESAMPLES = 2000


class Difference(NamedTuple):
    """A figure of both, and by how much the first is above the second.

    Attributes:
      name: in `FIGURES`.
      first: of the videos that both have.
      second: likewise.
      difference: first minus second, paired.
    """

    name: str
    first: Interval
    second: Interval
    difference: Interval

    @property
    def verdict(self) -> str:
        """Which is better, where the interval excludes 0."""
        low, high = self.difference.low, self.difference.high
        if not (np.isfinite(low) and np.isfinite(high)) or low <= 0 <= high:
            return "not told apart"
        better = FIGURES[self.name].better
        if not better:
            return "differ"
        return "A is better" if (low > 0) == (better == "higher") else "B is better"


class Comparison(NamedTuple):
    """What two results have in common, and how they differ.

    Attributes:
      differences: by group, "all" last.
      only_first: videos that the second result has no score of.
      only_second: likewise.
      notes: what could not be compared, and why.
    """

    differences: Mapping[str, list[Difference]]
    only_first: list[str]
    only_second: list[str]
    notes: list[str]

    def to_markdown(self, first: str, second: str) -> str:
        """Tables by group, and what is not in them."""
        header = ("figure", f"A: {first}", f"B: {second}", "A - B", "")
        parts = []
        for group, differences in self.differences.items():
            rows = [
                (
                    FIGURES[one.name].heading,
                    cell(one.name, one.first),
                    cell(one.name, one.second),
                    cell(one.name, one.difference),
                    one.verdict,
                )
                for one in differences
            ]
            title = "All videos" if group == "all" else f"{group} objects"
            parts.append(Table(title, header, tuple(rows)).to_markdown())
        note = (
            "Paired bootstrap over the videos that both have, intervals of 95 %. Of twenty figures "
            "that do not differ, one is expected outside by chance."
        )
        missing = [
            f"{len(ids)} videos only in {name}: {', '.join(ids)}"
            for name, ids in (("A", self.only_first), ("B", self.only_second))
            if ids
        ]
        return "\n".join([*parts, *missing, *self.notes, note]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {
            "groups": {
                group: {one.name: {**_plain(one), "verdict": one.verdict} for one in differences}
                for group, differences in self.differences.items()
            },
            "only_first": self.only_first,
            "only_second": self.only_second,
            "notes": self.notes,
        }


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Compares two results.

    Args:
      first: of `read_result`.
      second: likewise.

    Raises:
      UserError: they were made by other protocols or weights, or have no video in common.
    """
    _require_same(first, second)
    of_first, of_second = (
        {video["id"]: video for video in result["videos"]} for result in (first, second)
    )
    common = [id for id in of_first if id in of_second]
    only_first = [id for id in of_first if id not in of_second]
    only_second = [id for id in of_second if id not in of_first]
    if not common:
        raise UserError("the two results have no video in common: nothing to compare")
    notes = []
    if only_first or only_second:
        # What a video adds to a distance holds for the set it was computed with.
        notes.append("FID and FVD are not compared: the two are not of the same videos.")
    groups = sorted({of_first[id]["group"] for id in common})
    differences = {}
    for group in [*(groups if len(groups) > 1 else []), "all"]:
        ids = [id for id in common if group in ("all", of_first[id]["group"])]
        videos = [of_first[id] for id in ids], [of_second[id] for id in ids]
        found = _differences(*videos, first["protocol"]["average"])
        if not notes:
            found += _distances(*videos, "all" if group == "all" else "group")
        differences[group] = found
    return Comparison(differences, only_first, only_second, notes)


def read_result(path: str | Path) -> dict[str, Any]:
    """Reads a `result.json`.

    Args:
      path: of the file, or of the folder that holds it.

    Raises:
      UserError: it is missing, or something else.
    """
    path = Path(path)
    file = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        if not all("figures" in video for video in result["videos"]) or "protocol" not in result:
            raise UserError("an older format: score again")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no result of `flashmotion evaluate`: {error}") from error
    return result


def _differences(
    first: list[dict[str, Any]], second: list[dict[str, Any]], average: Any
) -> list[Difference]:
    statistic = STATISTICS[average]
    found = []
    for name in FIGURES:
        if not any(name in video["figures"] for video in first) or not any(
            name in video["figures"] for video in second
        ):
            continue
        rows = [
            rows_of(map(_sum, [v["figures"].get(name) for v in side])) for side in (first, second)
        ]
        measured = ~(np.isnan(rows[0]) | np.isnan(rows[1])).any(axis=1)
        rows = [one[measured] for one in rows]
        found.append(
            Difference(
                name,
                interval(rows[0], statistic),
                interval(rows[1], statistic),
                paired_difference(rows[0], rows[1], statistic, resamples=_RESAMPLES),
            )
        )
    return found


def _distances(
    first: list[dict[str, Any]], second: list[dict[str, Any]], of: str
) -> list[Difference]:
    found = []
    for name in DISTANCES:
        if not all(name in video["adds_to"] for video in (*first, *second)):
            continue
        rows = [
            np.array([video["adds_to"][name][of] for video in side], np.float64)
            for side in (first, second)
        ]
        found.append(
            Difference(
                name,
                interval(rows[0]),
                interval(rows[1]),
                paired_difference(rows[0], rows[1], resamples=_RESAMPLES),
            )
        )
    return found


def _plain(one: Difference) -> dict[str, Any]:
    intervals = {"first": one.first, "second": one.second, "difference": one.difference}
    return to_plain({one.name: intervals})[one.name]


def _sum(figure: Mapping[str, Any] | None) -> tuple[float, int]:
    if figure is None or not figure["count"]:
        return 0.0, 0
    return figure["mean"] * figure["count"], figure["count"]


def _require_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Refuses results that were not measured alike."""
    differing = []
    for name in ("protocol", "presets", "weights"):
        a, b = first.get(name) or {}, second.get(name) or {}
        differing += [
            f"{key}: {a.get(key)!r} and {b.get(key)!r}"
            for key in {**a, **b}
            if a.get(key) != b.get(key)
        ]
    if differing:
        raise UserError(
            f"the two were not measured alike: {'; '.join(differing)}; score both the same way"
        )
