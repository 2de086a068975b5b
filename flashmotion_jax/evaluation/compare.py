"""`flashmotion evaluate compare A.json B.json`: which differences of two results are significant.

The same videos are drawn for both (paired bootstrap), so what makes a video hard for both cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.evaluation.bootstrap import Interval, interval, paired_difference
from flashmotion_jax.evaluation.metrics import DISTANCES, METRICS, VIDEO_METRICS
from flashmotion_jax.evaluation.metrics.base import Average
from flashmotion_jax.evaluation.reports.json_tables import to_plain
from flashmotion_jax.evaluation.reports.tables import Table, cell
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import read_json_object

#: More than elsewhere: these intervals decide what is significant.
_RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """A metric of both results, and by how much the first is above the second.

    Attributes:
      name: Name of the metric.
      first: Number of the first result, for the videos that both have.
      second: Number of the second.
      difference: First minus second, paired.
    """

    name: str
    first: Interval
    second: Interval
    difference: Interval

    @property
    def verdict(self) -> str:
        """Which is better, if the interval excludes 0."""
        low, high = self.difference.low, self.difference.high
        if not (np.isfinite(low) and np.isfinite(high)) or low <= 0 <= high:
            return "not significant"
        better = METRICS[self.name].better
        if not better:
            return "differ"
        return "A is better" if (low > 0) == (better == "higher") else "B is better"


@dataclass(frozen=True)
class Comparison:
    """How two results differ on the videos that both have.

    Attributes:
      differences: Group -> differences; "all" is last.
      only_first: Videos that the second result has no score of.
      only_second: Videos that the first result has no score of.
      notes: What could not be compared, and why.
    """

    differences: Mapping[str, list[Difference]]
    only_first: list[str]
    only_second: list[str]
    notes: list[str]

    def to_markdown(self, first: str, second: str) -> str:
        """Tables by group, and what they leave out."""
        header = ("metric", f"A: {first}", f"B: {second}", "A - B", "")
        parts = []
        for group, differences in self.differences.items():
            rows = [
                (
                    METRICS[one.name].heading,
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
            "Paired bootstrap over the videos that both have, 95 % intervals. Of twenty metrics "
            "that do not differ, one is expected to look significant by chance."
        )
        missing = [
            f"{len(ids)} videos only in {name}: {', '.join(ids)}"
            for name, ids in (("A", self.only_first), ("B", self.only_second))
            if ids
        ]
        return "\n".join([*parts, *missing, *self.notes, note]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON types."""
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
      first: A result of `read_result`.
      second: Another one.

    Raises:
      UserError: They differ in protocol or weights, or have no video in common.
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
        # What a video contributes to a distance holds for the set it was computed with.
        notes.append("Fréchet distances are not compared: the two results have other videos.")
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
      path: The file, or its folder.

    Raises:
      UserError: It is missing, or not a result.
    """
    path = Path(path)
    file = path / "result.json" if path.is_dir() else path
    fix = "expected the result.json of `flashmotion evaluate`"
    result = read_json_object(file, fix)
    videos = result.get("videos")
    if not isinstance(videos, list) or not isinstance(result.get("protocol"), dict):
        raise UserError(f"{file} has no videos or no protocol; {fix}")
    if not all(isinstance(video, dict) and "metrics" in video for video in videos):
        raise UserError(f"{file} has an older format; evaluate again")
    return result


def _differences(
    first: list[dict[str, Any]], second: list[dict[str, Any]], average: Average
) -> list[Difference]:
    """Differences of the metrics of videos."""
    found = []
    for name, metric in VIDEO_METRICS.items():
        if all(any(name in video["metrics"] for video in side) for side in (first, second)):
            one, other = (
                np.array([_total(video["metrics"].get(name)) for video in side])
                for side in (first, second)
            )
            found.append(_difference(name, one, other, metric.statistic(average)))
    return found


def _distances(
    first: list[dict[str, Any]], second: list[dict[str, Any]], of: str
) -> list[Difference]:
    """Differences of the distances, each the mean of what the videos contribute."""
    found = []
    for name in DISTANCES:
        if all(name in video["adds_to"] for video in (*first, *second)):
            one, other = (
                np.array([video["adds_to"][name][of] for video in side], np.float64)
                for side in (first, second)
            )
            found.append(_difference(name, one, other, np.mean))
    return found


def _difference(
    name: str,
    first: np.ndarray,
    second: np.ndarray,
    statistic: Callable[[np.ndarray], float],
) -> Difference:
    """Compares two arrays of rows of the same videos, leaving out what either has not measured."""
    missing = np.isnan(first) | np.isnan(second)
    measured = ~missing.reshape(len(first), -1).any(axis=1)
    first, second = first[measured], second[measured]
    difference = paired_difference(first, second, statistic, resamples=_RESAMPLES)
    return Difference(name, interval(first, statistic), interval(second, statistic), difference)


def _plain(one: Difference) -> dict[str, Any]:
    intervals = {"first": one.first, "second": one.second, "difference": one.difference}
    return to_plain({one.name: intervals})[one.name]


def _total(number: Mapping[str, Any] | None) -> tuple[float, float]:
    """The total of a video, see `VideoMetric.total`."""
    if number is None or number["mean"] is None:
        return 0.0, np.nan
    return number["mean"] * number["weight"], number["weight"]


def _require_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Raises for results that were measured in different ways."""
    differing = []
    for name in ("protocol", "presets", "weights"):
        a, b = first.get(name) or {}, second.get(name) or {}
        differing += [
            f"{key}: {a.get(key)!r} and {b.get(key)!r}"
            # How pictures reach the size of a model is a matter of the method that is measured.
            for key in {**a, **b}.keys() - {"resize"}
            if a.get(key) != b.get(key)
        ]
    if differing:
        raise UserError(
            f"the results were measured in different ways: {'; '.join(differing)}; evaluate both "
            "in the same way"
        )
