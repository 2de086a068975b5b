"""What an evaluation returns and writes: numbers with all that they depend on, and every score.

OUT/result.json     protocol, folders, weights, versions, numbers of groups and videos, problems
OUT/scores.npz      <id>/<metric>, float32: of objects [K, F], tracks [N, F] or frames [F]
OUT/report.md       groups by number of objects, and tables in the layout of the paper's
OUT/report.html     the same with plots and the best and worst videos, in one file
OUT/videos/         what was measured of each video, so that a run can resume
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np

from flashmotion_jax.evaluation.benchmarks.base import Item, Problem
from flashmotion_jax.evaluation.bootstrap import Interval, interval
from flashmotion_jax.evaluation.features.presets import PRESETS
from flashmotion_jax.evaluation.frechet import frechet_of_videos
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.reports.json_tables import Rows, to_plain
from flashmotion_jax.evaluation.reports.tables import explanations, table_of_groups
from flashmotion_jax.evaluation.scoring import Score, summarize, totals_of
from flashmotion_jax.evaluation.store import Store
from flashmotion_jax.runtime.atomic import replacing

_PACKAGES = ("flashmotion_jax", "jax", "flax", "numpy", "av", "pillow", "transformers", "torch")

Contributions = Mapping[str, Mapping[str, np.ndarray]]
"""Group -> distance -> what each of its videos contributes; the distance is the mean."""


@dataclass(frozen=True)
class Results:
    """Results of an evaluation.

    Attributes:
      protocol: The choices that the numbers depend on.
      about: Folders and weights, by name.
      items: The usable videos of the benchmark.
      scores: Scores in the order of the benchmark.
      digests: SHA-256 of the generated videos, in the same order.
      problems: The videos without scores.
      groups: Group by number of objects, or "all" -> name of a metric -> its interval.
      contributions: What each video contributes to the distances.
      generated: Number of videos that were generated first.
    """

    protocol: Protocol
    about: Mapping[str, Any]
    items: Sequence[Item]
    scores: Sequence[Score]
    digests: Sequence[str]
    problems: Sequence[Problem]
    groups: Rows
    contributions: Contributions
    generated: int = 0

    def write(self, out: Path) -> None:
        """Writes `result.json` and `scores.npz`, each complete or not at all."""
        arrays = {
            f"{score.id}/{name}": values.astype(np.float32)
            for score in self.scores
            for name, values in score.values.items()
        }
        with replacing(out / "scores.npz") as scratch, scratch.open("wb") as file:
            np.savez_compressed(file, **cast(Any, arrays))
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        with replacing(out / "result.json") as scratch:
            scratch.write_text(text, encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """The contents of `result.json`."""
        presets = {
            name: asdict(PRESETS[preset])
            for name in ("fid", "fvd")
            if (preset := getattr(self.protocol, name)) is not None
        }
        return {
            "protocol": asdict(self.protocol),
            "presets": presets,
            **self.about,
            "versions": _versions(_PACKAGES),
            "groups": to_plain(self.groups),
            "videos": list(self._videos()),
            "problems": [asdict(problem) for problem in self.problems],
        }

    def to_markdown(self) -> str:
        """The table of groups, and what its metrics mean."""
        meanings = "".join(f"- {name}: {text}\n" for name, text in explanations(self.groups))
        return f"{table_of_groups(self.groups).to_markdown()}\n{meanings}"

    def settings(self) -> list[tuple[str, str]]:
        """All that the numbers depend on, as names and values for people."""
        titles = {
            "root": "folder of the benchmark",
            "pred": "folder of the generated videos",
            "masks": "folder of their masks",
            "tracks": "folder of their tracks",
        }
        return [
            *self.protocol.described(),
            *((titles.get(k, k), str(v)) for k, v in self.about.get("folders", {}).items() if v),
            *((f"weights of {k}", str(v)) for k, v in self.about.get("weights", {}).items() if v),
        ]

    def _videos(self) -> Iterator[dict[str, Any]]:
        rank: dict[str, int] = {}
        for i, (score, sha256) in enumerate(zip(self.scores, self.digests, strict=True)):
            in_group = rank[score.group] = rank.get(score.group, -1) + 1
            contributions = {
                name: {
                    "all": _finite(of_all[i]),
                    "group": _finite(self.contributions[score.group][name][in_group]),
                }
                for name, of_all in self.contributions["all"].items()
            }
            # The weight of a mean is the number of objects and frames it is over; that of a ratio
            # to the truth is the value of the truth.
            metrics = {
                name: {
                    "mean": total / weight if weight and not math.isnan(weight) else None,
                    "weight": _finite(weight) or 0,
                }
                for name, (total, weight) in totals_of(score.values, self.protocol).items()
            }
            yield {
                "id": score.id,
                "group": score.group,
                "sha256": sha256,
                "metrics": metrics,
                "adds_to": contributions,
            }


def collect(
    protocol: Protocol,
    about: Mapping[str, Any],
    items: Sequence[Item],
    scored: Sequence[tuple[Score, str]],
    problems: Sequence[Problem],
    store: Store,
    distances: Sequence[str],
    generated: int = 0,
) -> Results:
    """Computes the numbers of all groups.

    Args:
      protocol: The choices that the numbers depend on.
      about: Folders and weights.
      items: The usable videos of the benchmark.
      scored: Scores in the order of the benchmark, and the SHA-256 of each generated video.
      problems: The videos without scores.
      store: Reads their features.
      distances: Names of the distances that have features.
      generated: Number of videos that were generated first.
    """
    scores = [score for score, _ in scored]
    members = {
        name: [score for score in scores if score.group == name]
        for name in sorted({score.group for score in scores})
    } | {"all": scores}
    contributions = {
        group: {name: _contributions(store, some, name) for name in distances}
        for group, some in members.items()
    }
    groups = {
        group: summarize(some, protocol)
        | {name: _distance(one) for name, one in contributions[group].items()}
        for group, some in members.items()
    }
    digests = [sha256 for _, sha256 in scored]
    return Results(
        protocol, about, items, scores, digests, problems, groups, contributions, generated
    )


def _contributions(store: Store, scores: Sequence[Score], name: str) -> np.ndarray:
    _, values = frechet_of_videos(lambda i: store.features(scores[i].id, name), len(scores))
    return values


def _distance(contributions: np.ndarray) -> Interval:
    found = interval(contributions)
    # A single video of one row, as for FVD, has no distance.
    return found if found.count else Interval(np.nan, np.nan, np.nan, len(contributions))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the installed packages."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
