"""What was measured of each video, kept on disk: interrupted runs go on, and processes share work.

OUT/videos/<id>.npz holds the scores and features of a video, or why there are none, with a key of
all that they depend on. A file with another key is made anew. Results are put together from these
files in the benchmark's order, so that they do not depend on who made which, or when.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from flashmotion_jax.evaluation.benchmarks import Fault, Item
from flashmotion_jax.evaluation.moments import Pair
from flashmotion_jax.evaluation.scoring import Score
from flashmotion_jax.media.frames import find_video, image_files
from flashmotion_jax.runtime.atomic import replacing

#: Of what is stored; raised when the same inputs would give other scores.
_VERSION = 1


class Entry(NamedTuple):
    """What is known of a video, without its features.

    Attributes:
      score: of it; its features are empty, `Store.features` reads them.
      fault: why there is none; exactly one of the two is there.
      sha256: of the generated video; empty where there is none.
    """

    score: Score | None
    fault: Fault | None
    sha256: str


class Store:
    """The files of a run.

    Args:
      folder: OUT/videos.
      depends: what all scores depend on beside the video itself, as JSON can hold it.
      predictions: folder of the generated videos.
    """

    def __init__(self, folder: Path, depends: Mapping[str, Any], predictions: Path):
        self._folder, self._predictions = folder, predictions
        self._depends = json.dumps({"version": _VERSION, **depends}, sort_keys=True)

    def read(self, item: Item) -> Entry | None:
        """What is known of a video, or None if nothing is, or something of other inputs."""
        path = self._path(item.id)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                if about["key"] != self._key(item, about["sha256"]) or about[
                    "sha256"
                ] != self._digest(item):
                    return None
                if about["reason"] is not None:
                    return Entry(None, Fault(item.id, about["reason"]), about["sha256"])
                values = {name: stored[f"values/{name}"] for name in about["values"]}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return Entry(Score(item.id, item.group, values), None, about["sha256"])

    def write(self, item: Item, found: Score | Fault) -> None:
        """Keeps what was measured of a video."""
        digest = self._digest(item)
        values = {} if isinstance(found, Fault) else dict(found.values)
        features = {} if isinstance(found, Fault) else dict(found.features)
        about = {
            "key": self._key(item, digest),
            "sha256": digest,
            "reason": found.reason if isinstance(found, Fault) else None,
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
        """The features [F, D] of a generated video and of the truth."""
        with np.load(self._path(id), allow_pickle=False) as stored:
            return (
                stored[f"features/{name}/generated"],
                stored[f"features/{name}/truth"],
            )

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.npz"

    def _digest(self, item: Item) -> str:
        path = find_video(self._predictions, item.id)
        return digest(path) if path.exists() else ""

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


def digest(video: Path) -> str:
    """sha256 of a file, or of the images of a folder one after the other."""
    total = hashlib.sha256()
    for path in image_files(video) if video.is_dir() else [video]:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                total.update(piece)
    return total.hexdigest()


def _describe(path: Path) -> str:
    """A file by its name, size and time: reading the truth again would take as long as scoring."""
    if path.is_dir():
        return f"{path.name} {len(image_files(path))}"
    stat = path.stat()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
