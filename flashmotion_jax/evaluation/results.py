"""What an evaluation leaves: figures with all that they depend on, and every score.

OUT/result.json     protocol, folders, weights, versions, figures of groups and videos, faults
OUT/scores.npz      <id>/<figure>, each float32: of objects [K, F], tracks [N, F] or frames [F]
OUT/report.md       groups by number of objects, and the layout of the paper's tables
OUT/report.html     the same with plots and the best and worst videos, one file
OUT/videos/         what was measured of each video, so that a run can go on
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np

from flashmotion_jax.evaluation.benchmarks import Fault
from flashmotion_jax.evaluation.bootstrap import Interval, interval
from flashmotion_jax.evaluation.moments import distance_of_videos
from flashmotion_jax.evaluation.presets import PRESETS
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.report import Rows, to_plain
from flashmotion_jax.evaluation.scoring import Score, summarise, totals
from flashmotion_jax.evaluation.store import Store
from flashmotion_jax.runtime.atomic import replacing

_PACKAGES = ("flashmotion_jax", "jax", "flax", "numpy", "av", "pillow", "transformers", "torch")

Values = Mapping[str, Mapping[str, np.ndarray]]
"""Group -> "fid" or "fvd" -> what each of its videos adds, of which the distance is the mean."""


@dataclass(frozen=True)
class Results:
    """All that is known at the end.

    Attributes:
      protocol: of the scores.
      about: folders and weights, by name.
      scores: in the benchmark's order.
      digests: of the generated videos, in the same order.
      faults: the videos without scores.
      groups: figures of each group by number of objects, and of "all".
      values: what each video adds to the distances of its group, and of "all".
    """

    protocol: Protocol
    about: Mapping[str, Any]
    scores: Sequence[Score]
    digests: Sequence[str]
    faults: Sequence[Fault]
    groups: Rows
    values: Values

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        about: Mapping[str, Any],
        scored: Sequence[tuple[Score, str]],
        faults: Sequence[Fault],
        store: Store,
    ) -> Results:
        """Puts results together.

        Args:
          protocol: of the scores.
          about: folders and weights.
          scored: scores in the benchmark's order, and the sha256 of each generated video.
          faults: the videos without scores.
          store: reads their features.
        """
        scores = [score for score, _ in scored]
        members = {
            name: [score for score in scores if score.group == name]
            for name in sorted({score.group for score in scores})
        } | {"all": scores}
        distances = [name for name in ("fid", "fvd") if getattr(protocol, name) is not None]
        values = {
            group: {name: _values(store, some, name) for name in distances}
            for group, some in members.items()
        }
        rows = {
            group: summarise(some, protocol)
            | {name: _distance(one) for name, one in values[group].items()}
            for group, some in members.items()
        }
        digests = [sha256 for _, sha256 in scored]
        return cls(protocol, about, scores, digests, faults, rows, values)

    def write(self, out: Path) -> None:
        """Writes `result.json` and `scores.npz`, each whole or not at all."""
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
        """What `result.json` holds."""
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
            "faults": [fault._asdict() for fault in self.faults],
        }

    def _videos(self) -> Iterable[dict[str, Any]]:
        rank: dict[str, int] = {}
        for i, (score, sha256) in enumerate(zip(self.scores, self.digests, strict=True)):
            in_group = rank[score.group] = rank.get(score.group, -1) + 1
            added = {
                name: {
                    "all": _plain(of_all[i]),
                    "group": _plain(self.values[score.group][name][in_group]),
                }
                for name, of_all in self.values["all"].items()
            }
            figures = {
                name: {"mean": total / count if count else None, "count": count}
                for name, (total, count) in totals(score, self.protocol).items()
            }
            yield {
                "id": score.id,
                "group": score.group,
                "sha256": sha256,
                "figures": figures,
                "adds_to": added,
            }


def _values(store: Store, scores: Sequence[Score], name: str) -> np.ndarray:
    _, values = distance_of_videos(lambda i: store.features(scores[i].id, name), len(scores))
    return values


def _distance(values: np.ndarray) -> Interval:
    found = interval(values)
    # The rows of one video alone, FVD's, have no distance.
    return found if found.count else Interval(np.nan, np.nan, np.nan, len(values))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of what is installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
