"""Benchmarks: which videos there are, and the label pictures of their objects.

FlashBench, MagicBench and Sprites are read as folders in MagicData's layout, `folder` as one whose
CSV may be missing, DAVIS as DAVIS 2017 is published. A video that cannot be scored is listed with
its reason. Nothing is decoded here but the labels of each first frame.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from flashmotion_jax.data.frames import image_files
from flashmotion_jax.data.magicdata import Row, find_csv, read_rows
from flashmotion_jax.trajectory.labels import read_labels

Bench = Literal["flashbench", "magicbench", "davis", "sprites", "folder"]

#: Frames of the ground truth that the paper compares; None: as many as there are.
_FRAMES: dict[Bench, int | None] = {
    "flashbench": 121,
    "magicbench": 49,
    "davis": 49,
    "sprites": None,
    "folder": None,
}


class Item(NamedTuple):
    """A video of a benchmark.

    Attributes:
      id: names the generated video, `<id>.mp4` or a folder `<id>`.
      caption: empty where the benchmark has none.
      masks: label pictures of the frames that are compared, an object's label being the same in
        all of them, 0 being the background.
      labels: of the objects, those of frame 0; what enters later is not counted.
    """

    id: str
    caption: str
    masks: tuple[Path, ...]
    labels: tuple[int, ...]

    @property
    def group(self) -> str:
        """The paper's group by number of objects: "1" to "5", or "6+"."""
        return str(len(self.labels)) if len(self.labels) < 6 else "6+"


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
      ValueError: the bench is unknown, the folder is not in its layout, or no video can be scored.
    """
    if bench not in get_args(Bench):
        raise ValueError(f"bench={bench!r}; expected one of {', '.join(get_args(Bench))}")
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"no folder {root}: give that of the benchmark")
    named, masks = _davis(root) if bench == "davis" else _magicdata(root, bench == "folder")
    found = [
        Fault(row.id, row.reason) if isinstance(row, Fault) else _item(row, masks(row.id), bench)
        for row in named
    ]
    items = tuple(one for one in found if isinstance(one, Item))
    faults = tuple(one for one in found if isinstance(one, Fault))
    if not items:
        first = f", the first is {faults[0].id}: {faults[0].reason}" if faults else ""
        raise ValueError(f"{root}: none of its {len(faults)} videos can be scored{first}")
    return Benchmark(items, faults)


def object_masks(path: Path, labels: tuple[int, ...]) -> np.ndarray:
    """The objects of a label picture.

    Args:
      path: of the picture.
      labels: K of them.

    Returns:
      bool [K, H, W].

    Raises:
      ValueError: the picture cannot be read.
    """
    return read_labels(path)[0] == np.array(labels, np.int32)[:, None, None]


class _Named(NamedTuple):
    """What a benchmark names: an id and what it says of it."""

    id: str
    caption: str


_Naming = tuple[list[_Named | Fault], Callable[[str], list[Path]]]


def _magicdata(root: Path, csv_may_lack: bool) -> _Naming:
    """Ids with captions, and where the maps of an id are, of a folder in MagicData's layout."""
    folder = root / "masks"
    if csv_may_lack and not (root / "MagicData.csv").is_file():
        ids = sorted(path.name for path in folder.glob("*") if path.is_dir())
        return [_Named(id, "") for id in ids], lambda id: image_files(folder / id)
    rows = read_rows(find_csv(root, Path("MagicData.csv")))
    named = [
        _Named(row.id, row.caption) if isinstance(row, Row) else Fault(row.id, row.reason)
        for row in rows
    ]
    return named, lambda id: image_files(folder / id)


def _davis(root: Path) -> _Naming:
    """Sequences of DAVIS 2017's validation set, and where their annotations are."""
    listing = root / "ImageSets" / "2017" / "val.txt"
    if not listing.is_file():
        raise ValueError(
            f"no {listing}: expected the folder DAVIS, with Annotations/ and ImageSets/"
        )
    ids = listing.read_text(encoding="utf-8").split()
    folder = root / "Annotations" / "480p"
    return [_Named(id, "") for id in ids], lambda id: image_files(folder / id)


def _item(row: _Named, masks: list[Path], bench: Bench) -> Item | Fault:
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
    return Item(row.id, row.caption, tuple(masks[:count]), tuple(labels))
