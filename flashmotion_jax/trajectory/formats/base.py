"""What a trajectory format is, and what reading and writing one takes.

A format is one file of this folder: it defines a `Format`, which `FORMATS` in `__init__.py` lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from flashmotion_jax.config import MapKind, Resize, SamplingConfig
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.render import render
from flashmotion_jax.trajectory.schema import Canvas, Trajectory
from flashmotion_jax.trajectory.tracks import Tracks, boxes_from_tracks, points_from_tracks

#: The published model's own size, where neither the file nor the caller names one.
_CANVAS = Canvas(1280, 704)


@dataclass(frozen=True)
class ImportOptions:
    """What some formats leave open.

    Attributes:
      canvas: The picture that point tracks are in pixels of.
      num_frames: Length of a trajectory read from a single picture.
      fps: Frames per second where the file has no rate.
      box_size: (width, height) in pixels of the boxes around point tracks; None: squares of a
        fifth of the canvas's shorter side.
      map_kind: What maps show after frame 0. With "points", point tracks get no boxes.
      id: Row of a MagicData folder; empty: the first.
    """

    canvas: Canvas = _CANVAS
    num_frames: int = 121
    fps: float = 24.0
    box_size: tuple[float, float] | None = None
    map_kind: MapKind = "box"
    id: str = ""


@dataclass(frozen=True, eq=False)
class Imported:
    """A trajectory, and what else its file holds.

    Attributes:
      trajectory: The motion.
      image: The first frame, uint8 `[H, W, 3]`, or None.
      prompt: What happens in the video, or empty.
      notices: What was left out or changed, for people.
    """

    trajectory: Trajectory
    image: np.ndarray | None = None
    prompt: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportRequest:
    """A trajectory to be written.

    Attributes:
      trajectory: The motion.
      name: Of the project; files are named after it.
      height: Of maps, in pixels.
      width: Of maps, in pixels.
      num_frames: Of maps.
      fps: Of map videos.
      map_kind: What maps show after frame 0.
      prompt: For MagicData.
      image: File of the first frame, for MagicData.
      video: File of a generated video of this size and length, for MagicData.
      resize: How image and maps reach the size.
      point_sigma: Of points in maps, as a fraction of the shorter side.
    """

    trajectory: Trajectory
    name: str
    height: int
    width: int
    num_frames: int
    fps: float
    map_kind: MapKind
    prompt: str = ""
    image: Path | None = None
    video: Path | None = None
    resize: Resize = "crop"
    point_sigma: float = SamplingConfig.point_sigma

    @property
    def stem(self) -> str:
        """The name without characters that a file name should not have."""
        return re.sub(r"[^\w-]+", "-", self.name).strip("-_")[:60] or "trajectory"

    def maps(self, map_kind: MapKind) -> np.ndarray:
        """Renders the maps that the model would get, uint8 `[F, H, W, 3]`.

        Raises:
          UserError: The maps have more pixels than the active limits allow.
        """
        return render(
            self.trajectory,
            self.height,
            self.width,
            map_kind,
            num_frames=self.num_frames,
            resize=self.resize,
            point_sigma=self.point_sigma,
        )


@dataclass(frozen=True)
class Format:
    """A trajectory format: a row of `FORMATS`.

    Attributes:
      name: In the HTTP API and in Python.
      title: For people.
      suffixes: Of the files that hold it, lower case with the dot.
      limits: What it cannot express, for people; empty: nothing.
      read: Path of a file or folder -> what it holds; None: it is only written.
      write: Writes into an empty folder and returns the file; None: it is only read.
      recognizes: Whether a path holds this format; None: if a file has one of `suffixes`. Formats
        are asked in the order of the table, and before the file is known to exist.
      read_maps: For formats that are maps already: the frames, uint8 `[F, H, W, 3]`.
      writes_maps: Whether what is written depends on size, length and `map_kind`.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    limits: str
    read: Callable[[Path, ImportOptions], Imported] | None = None
    write: Callable[[ExportRequest, Path], Path] | None = None
    recognizes: Callable[[Path], bool] | None = None
    read_maps: Callable[[Path], np.ndarray] | None = None
    writes_maps: bool = False

    def matches(self, path: Path) -> bool:
        """Whether a file or folder is read with this format."""
        if self.recognizes is None:
            return bool(files_of(path, self.suffixes))
        return self.recognizes(path)


def files_of(path: Path, suffixes: Sequence[str] | None = None) -> list[Path]:
    """The files with one of the suffixes: a file itself, or those below a folder, sorted."""
    # macOS adds hidden copies to archives.
    files = [path] if not path.is_dir() else sorted(path.rglob("*"))
    return [
        file
        for file in files
        if (suffixes is None or file.suffix.lower() in suffixes)
        and not file.name.startswith(".")
        and "__MACOSX" not in file.parts
        and not file.is_dir()
    ]


def json_file(path: Path) -> Path | None:
    """The JSON file of a path: one called `trajectory.json`, else the first; None: no JSON."""
    files = files_of(path, (".json",))
    named = [file for file in files if file.name == "trajectory.json"]
    return next(iter(named or files), None)


def holds_json_list(file: Path) -> bool:
    """Whether a JSON file holds a list or text, judged by its first character."""
    try:
        with file.open("rb") as opened:
            head = opened.read(4096)
    except OSError:
        return False
    text = head.decode(json.detect_encoding(head), errors="ignore")
    return text.lstrip("\ufeff \t\r\n")[:1] in ("[", '"')


def as_numbers(array: np.ndarray, name: object) -> np.ndarray:
    """The array as float64.

    Raises:
      UserError: It holds text, dates, complex numbers or objects.
    """
    if array.dtype.kind not in "biuf":
        raise UserError(f"{name} holds {array.dtype}, expected an array of numbers")
    return np.asarray(array, np.float64)


def imported_tracks(tracks: Tracks, options: ImportOptions) -> Imported:
    """Point tracks as they are for maps of points, otherwise as boxes of `options.box_size`."""
    canvas = options.canvas
    if options.map_kind == "points":
        return Imported(points_from_tracks(tracks, canvas, options.fps))
    side = max(1, min(canvas.width, canvas.height) // 5)
    size = options.box_size or (side, side)
    return Imported(boxes_from_tracks(tracks, canvas, size, options.fps))


def zip_folder(folder: Path, file: Path) -> Path:
    """Packs everything below a folder into a zip without compression."""
    with ZipFile(file, "w", ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return file
