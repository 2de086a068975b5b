"""Measurements of each video on disk, so that runs can resume and processes can share the work.

OUT/videos/<id>.npz holds the scores and features of a video, or the reason why there are none, with
a key of all that they depend on. A file with another key is measured again. Results are collected
from these files in the order of the benchmark, so they do not depend on who measured what.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from flashmotion_jax.evaluation.benchmarks.base import Item, Problem
from flashmotion_jax.evaluation.frechet import Pair
from flashmotion_jax.evaluation.scoring import Score
from flashmotion_jax.media.frames import find_video, image_files
from flashmotion_jax.runtime.array_files import read_npz
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.hashing import file_sha256
from flashmotion_jax.runtime.json_files import parse_json

#: Version of the stored scores; raised when the same inputs would give other ones.
_VERSION = 3


@dataclass(frozen=True)
class Entry:
    """What is known of a video, without its features.

    Attributes:
      found: Its score, whose features `Store.features` reads, or why there is none.
      sha256: Hash of the generated video; empty if it is missing.
    """

    found: Score | Problem
    sha256: str


class Store:
    """The files of an evaluation.

    Args:
      folder: OUT/videos.
      depends: What all scores depend on beside the video itself, in JSON types.
      predictions: Folder of the generated videos.
    """

    def __init__(self, folder: Path, depends: Mapping[str, Any], predictions: Path):
        self._folder, self._predictions = folder, predictions
        self._depends = json.dumps({"version": _VERSION, **depends}, sort_keys=True)

    def read(self, item: Item) -> Entry | None:
        """What is known of a video; None if nothing is, or only of other inputs."""
        path = self._path(item.id)
        if not path.is_file():
            return None
        try:
            stored = read_npz(path, lambda name: not name.startswith("features/"))
            about = parse_json(str(stored["about"]), path, "remove it")
            sha256 = about["sha256"]
            if about["key"] != self._key(item, sha256) or sha256 != self._sha256(item):
                return None
            if about["reason"] is not None:
                return Entry(Problem(item.id, about["reason"]), sha256)
            values = {name: stored[f"values/{name}"] for name in about["values"]}
        except (OSError, UserError, KeyError, TypeError):
            # A damaged file counts as missing.
            return None
        return Entry(Score(item.id, item.group, values), sha256)

    def write(self, item: Item, found: Score | Problem) -> None:
        """Keeps what was measured of a video."""
        sha256 = self._sha256(item)
        values = {} if isinstance(found, Problem) else found.values
        features = {} if isinstance(found, Problem) else found.features
        about = {
            "key": self._key(item, sha256),
            "sha256": sha256,
            "reason": found.reason if isinstance(found, Problem) else None,
            "values": list(values),
        }
        arrays: dict[str, np.ndarray] = {"about": np.array(json.dumps(about))}
        arrays |= {f"values/{name}": array for name, array in values.items()}
        for name, pair in features.items():
            for side, array in zip(("generated", "truth"), pair, strict=True):
                arrays[f"features/{name}/{side}"] = array.astype(np.float32)
        with replacing(self._path(item.id)) as scratch, scratch.open("wb") as file:
            np.savez(file, **cast(Any, arrays))

    def features(self, id: str, name: str) -> Pair:
        """The features `[N, D]` of a generated video and of the true one."""
        with np.load(self._path(id), allow_pickle=False) as stored:
            return (
                stored[f"features/{name}/generated"],
                stored[f"features/{name}/truth"],
            )

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.npz"

    def _sha256(self, item: Item) -> str:
        path = find_video(self._predictions, item.id)
        if not path.exists():
            return ""
        return file_sha256(*(image_files(path) if path.is_dir() else [path]))

    def _key(self, item: Item, sha256: str) -> str:
        files = [*item.masks, item.video, item.image, item.trajectory, *(item.tracks or ())]
        described = [
            self._depends,
            sha256,
            item.group,
            str(item.num_frames),
            str(item.labels),
            *(_describe(path) for path in files if path is not None),
        ]
        return hashlib.sha256("\n".join(described).encode()).hexdigest()


def _describe(path: Path) -> str:
    """A file by its name, size and time: hashing the truth would take as long as scoring."""
    if path.is_dir():
        return f"{path.name} {len(image_files(path))}"
    stat = path.stat()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
