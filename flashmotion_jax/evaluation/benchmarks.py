"""Benchmarks: which videos there are, and the label pictures of their objects.

FlashBench, MagicBench and Sprites are read as folders in MagicData's layout, `folder` as one whose
CSV may be missing, DAVIS as DAVIS 2017 is published, MoveBench as `movebench` says. A video that
cannot be scored is listed with its reason. Nothing is decoded here but the labels of each first
frame.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from flashmotion_jax.media.frames import find_video, image_files
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats.magicdata_csv import Row, find_csv, read_rows
from flashmotion_jax.trajectory.labels import read_labels

Bench = Literal["flashbench", "magicbench", "davis", "movebench", "sprites", "folder"]

#: Frames of the ground truth that the paper compares; None: as many as there are.
_FRAMES: dict[Bench, int | None] = {
    "flashbench": 121,
    "magicbench": 49,
    "davis": 49,
    "movebench": None,
    "sprites": None,
    "folder": None,
}


class Item(NamedTuple):
    """A video of a benchmark.

    Attributes:
      id: names the generated video, `<id>.mp4` or a folder `<id>`.
      caption: empty where the benchmark has none.
      masks: label pictures of the frames that are compared, an object's label being the same in
        all of them, 0 being the background; MoveBench has that of frame 0 at most.
      labels: of the objects, those of frame 0; what enters later is not counted.
      video: the truth: a file, or a folder of images; None if it is not there.
      image: the first frame, where it is a file of its own.
      trajectory: a trajectory.json with the boxes that are asked for, if there is one.
      tracks: of points, and their visibility, where the benchmark has them.
      length: frames that are compared, where `masks` do not say.
      kind: of MoveBench, "single" or "multi".
    """

    id: str
    caption: str
    masks: tuple[Path, ...]
    labels: tuple[int, ...]
    video: Path | None = None
    image: Path | None = None
    trajectory: Path | None = None
    tracks: tuple[Path, Path] | None = None
    length: int | None = None
    kind: str = ""

    @property
    def group(self) -> str:
        """The paper's group by number of objects: "1" to "5", or "6+"; of MoveBench its own."""
        return self.kind or (str(len(self.labels)) if len(self.labels) < 6 else "6+")

    @property
    def num_frames(self) -> int:
        """The frames that are compared."""
        return len(self.masks) if self.length is None else self.length


class Fault(NamedTuple):
    """A video that could not be scored, and why."""

    id: str
    reason: str


class Benchmark(NamedTuple):
    """The videos of a benchmark, in its order, and those that it names but that are not whole."""

    items: tuple[Item, ...]
    faults: tuple[Fault, ...]


def read_benchmark(bench: Bench, root: str | Path) -> Benchmark:
    """Reads what a benchmark consists of.

    Args:
      bench: whose layout and number of frames. FlashBench's and MagicBench's videos have at least
        that many, or are faults; DAVIS has shorter ones, which count with 4 n + 1 frames.
      root: its folder.

    Returns:
      Its videos and faults.

    Raises:
      UserError: the bench is unknown, the folder is not in its layout, or no video can be scored.
    """
    if bench not in get_args(Bench):
        raise UserError(f"bench={bench!r}; expected one of {', '.join(get_args(Bench))}")
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no folder {root}: give that of the benchmark")
    found: list[Item | Fault]
    if bench == "movebench":
        from flashmotion_jax.evaluation.movebench import read_movebench

        found = read_movebench(root)
    else:
        named, files = _davis(root) if bench == "davis" else _magicdata(root, bench == "folder")
        found = [
            Fault(row.id, row.reason) if isinstance(row, Fault) else _item(row, files, bench)
            for row in named
        ]
    items = tuple(one for one in found if isinstance(one, Item))
    faults = tuple(one for one in found if isinstance(one, Fault))
    if not items:
        first = f", the first is {faults[0].id}: {faults[0].reason}" if faults else ""
        raise UserError(f"{root}: none of its {len(faults)} videos can be scored{first}")
    return Benchmark(items, faults)


def object_masks(path: Path, labels: tuple[int, ...]) -> np.ndarray:
    """The objects of a label picture.

    Args:
      path: of the picture.
      labels: K of them.

    Returns:
      bool [K, H, W].

    Raises:
      UserError: the picture cannot be read.
    """
    return read_labels(path)[0] == np.array(labels, np.int32)[:, None, None]


class _Named(NamedTuple):
    """What a benchmark names: an id and what it says of it."""

    id: str
    caption: str


class _Files(NamedTuple):
    """Where what belongs to an id is: its masks, its video, and what sampling is given."""

    masks: Callable[[str], list[Path]]
    video: Callable[[str], Path]
    root: Path


_Naming = tuple[list[_Named | Fault], _Files]


def _magicdata(root: Path, csv_may_lack: bool) -> _Naming:
    """Ids with captions, and where the maps of an id are, of a folder in MagicData's layout."""
    folder = root / "masks"
    files = _Files(
        lambda id: image_files(folder / id), lambda id: find_video(root / "videos", id), root
    )
    if csv_may_lack and not (root / "MagicData.csv").is_file():
        ids = sorted(path.name for path in folder.glob("*") if path.is_dir())
        return [_Named(id, "") for id in ids], files
    rows = read_rows(find_csv(root, Path("MagicData.csv")))
    named = [
        _Named(row.id, row.caption) if isinstance(row, Row) else Fault(row.id, row.reason)
        for row in rows
    ]
    return named, files


def _davis(root: Path) -> _Naming:
    """Sequences of DAVIS 2017's validation set, and where their annotations are."""
    listing = root / "ImageSets" / "2017" / "val.txt"
    if not listing.is_file():
        raise UserError(
            f"no {listing}: expected the folder DAVIS, with Annotations/ and ImageSets/"
        )
    ids = listing.read_text(encoding="utf-8").split()
    folder, pictures = root / "Annotations" / "480p", root / "JPEGImages" / "480p"
    captions = _read_captions(root / "captions.json")
    files = _Files(lambda id: image_files(folder / id), lambda id: pictures / id, root)
    return [_Named(id, captions.get(id, "")) for id in ids], files


def _read_captions(path: Path) -> dict[str, str]:
    """Id to caption, of a JSON file that may be missing: DAVIS has no captions of its own."""
    if not path.is_file():
        return {}
    try:
        captions = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(captions, dict):
        raise UserError(f'{path}: expected {{"camel": "a camel walks", ...}}')
    return {str(id): str(caption) for id, caption in captions.items()}


def _item(row: _Named, files: _Files, bench: Bench) -> Item | Fault:
    masks = files.masks(row.id)
    if not masks:
        return Fault(row.id, "no masks")
    wanted = _FRAMES[bench] or len(masks)
    count = min(wanted, len(masks))
    if bench == "davis":
        count = (count - 1) // 4 * 4 + 1
    elif count < wanted:
        return Fault(row.id, f"{count} masks, {wanted} are needed")
    try:
        labels = np.setdiff1d(read_labels(masks[0])[0], [0]).tolist()
    except ValueError as error:
        return Fault(row.id, str(error))
    if not labels:
        return Fault(row.id, "no object in frame 0")
    video, first = files.video(row.id), files.root / "first_frames" / f"{row.id}.png"
    trajectory = files.root / "trajectories" / f"{row.id}.json"
    return Item(
        row.id,
        row.caption,
        tuple(masks[:count]),
        tuple(labels),
        video=video if video.exists() else None,
        image=first if first.is_file() else None,
        trajectory=trajectory if trajectory.is_file() else None,
    )
