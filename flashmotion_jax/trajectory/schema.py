"""Trajectories, the motion that a user wants, as data and as `trajectory.json` (format v1).

They are drawn in the editor, imported or written by hand, and then rendered to the maps that the
adapter gets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError, require_file
from flashmotion_jax.runtime.json_files import read_json_value
from flashmotion_jax.runtime.limits import check_num_boxes
from flashmotion_jax.trajectory.keyframes import Keyframe, Point, interpolate
from flashmotion_jax.trajectory.masks import Mask, read_mask_png
from flashmotion_jax.trajectory.palette import palette_color
from flashmotion_jax.trajectory.validation import (
    MAX_PROBLEMS,
    VERSION,
    find_problems,
    with_current_names,
)


@dataclass(frozen=True)
class Canvas:
    """The size in pixels of the image that boxes are fractions of."""

    width: int
    height: int


@dataclass(frozen=True)
class TrackedObject:
    """An object that follows a box, or a point.

    Attributes:
      id: Number from 1, which decides what is painted over what: see `render`.
      keyframes: At least one, in order of time; none with `points`.
      name: Name for people.
      color: "#rrggbb", or None for the color of the id in MagicData.
      mask: Mask on frame 0, of the size of the canvas; None: the filled box.
      points: Instead of keyframes, (x, y) as fractions of the canvas on every frame, None where
        the point is hidden.
    """

    id: int
    keyframes: tuple[Keyframe, ...] = ()
    name: str = ""
    color: str | None = None
    mask: Mask | None = None
    points: tuple[Point | None, ...] | None = None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Color in the maps, RGB 0..255."""
        if self.color is None:
            return palette_color(self.id)
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue

    def boxes(self, times_F: np.ndarray) -> np.ndarray:
        """Interpolates its box, which has no extent for a point.

        While a point is hidden, it moves in a straight line.

        Args:
          times_F: Times in frames, not necessarily integers.

        Returns:
          float64 [F, 4], (x0, y0, x1, y1) as fractions of the canvas.
        """
        if self.points is None:
            return interpolate(self.keyframes, times_F)
        seen = [frame for frame, point in enumerate(self.points) if point is not None]
        points_N2 = np.array([self.points[frame] for frame in seen])
        return np.tile(np.stack([np.interp(times_F, seen, axis) for axis in points_N2.T], 1), 2)

    def shown(self, times_F: np.ndarray) -> np.ndarray:
        """Whether it is not hidden, bool [F]; between two frames, on both."""
        if self.points is None:
            return np.ones(len(times_F), bool)
        seen = np.array([point is not None for point in self.points])
        return seen[np.floor(times_F).astype(int)] & seen[np.ceil(times_F).astype(int)]


@dataclass(frozen=True)
class Trajectory:
    """The motion of the objects of a video.

    Attributes:
      canvas: Size of the image that boxes are fractions of.
      num_frames: Length of the motion.
      fps: Frames per second.
      objects: Any number of objects.
      sparse_frames: Frames on which boxes are drawn; None: all.

    Raises:
      UserError: On construction; the message lists all problems.
    """

    canvas: Canvas
    num_frames: int
    fps: float
    objects: tuple[TrackedObject, ...]
    sparse_frames: tuple[int, ...] | None = None

    def __post_init__(self):
        _raise_problems(find_problems(self.to_dict()))

    def boxes(self, num_frames: int | None = None) -> np.ndarray:
        """Interpolates the box of every object on every frame.

        Args:
          num_frames: Number of frames to stretch the motion to; None: its own length.

        Returns:
          float64 [K, F, 4], (x0, y0, x1, y1) as fractions of the canvas.

        Raises:
          UserError: There are more boxes than the active limits allow.
        """
        check_num_boxes(len(self.objects), num_frames or self.num_frames, "boxes")
        times_F = self._times(num_frames)
        boxes = [item.boxes(times_F) for item in self.objects]
        return np.array(boxes).reshape(-1, len(times_F), 4)

    def shown(self, num_frames: int | None = None) -> np.ndarray:
        """Whether every object is not hidden on every frame, after stretching, bool [K, F]."""
        times_F = self._times(num_frames)
        shown = [item.shown(times_F) for item in self.objects]
        return np.array(shown, bool).reshape(-1, len(times_F))

    def drawn(self, num_frames: int | None = None) -> np.ndarray:
        """Whether each frame shows boxes, after stretching, bool [F]; frame 0 always does."""
        if self.sparse_frames is None:
            return np.ones(num_frames or self.num_frames, bool)
        return self._marked((0, *self.sparse_frames), num_frames)

    def known(self, num_frames: int | None = None) -> np.ndarray:
        """Whether each frame says where objects are to be, after stretching, bool [F].

        If boxes are drawn on some frames only, it is these, otherwise the keyframes of all objects.
        Points say it on every frame.
        """
        if self.sparse_frames is not None or any(item.points for item in self.objects):
            return self.drawn(num_frames)
        keyframes = {key.frame for item in self.objects for key in item.keyframes}
        return self._marked(sorted(keyframes), num_frames)

    def _times(self, num_frames: int | None) -> np.ndarray:
        """Times of the frames of the motion, stretched to a number of frames."""
        return np.linspace(0, self.num_frames - 1, num_frames or self.num_frames)

    def _marked(self, frames: Iterable[int], num_frames: int | None) -> np.ndarray:
        """Marks frames of the motion, stretched to a number of frames, bool [F]."""
        last = (num_frames or self.num_frames) - 1
        frames_N = np.array(list(frames), np.float64)
        stretched_N = np.rint(frames_N * last / max(self.num_frames - 1, 1))
        # Frame 0 shows masks, so a box of a later frame must not be rounded to it.
        stretched_N = np.minimum(np.maximum(stretched_N, frames_N > 0), last)
        marked_F = np.zeros(last + 1, bool)
        marked_F[stretched_N.astype(int)] = True
        return marked_F

    @classmethod
    def from_dict(cls, data: Any, folder: str | Path | None = None) -> Trajectory:
        """Builds a trajectory from decoded JSON.

        Args:
          data: The decoded JSON.
          folder: Folder of the PNG files of masks; None: masks must be run lengths.

        Raises:
          UserError: The data is invalid; the message lists all problems.
        """
        folder = None if folder is None else Path(folder)
        data = with_current_names(data)
        _raise_problems(find_problems(data, folder))
        sparse_frames = data.get("sparse_frames")
        return cls(
            canvas=Canvas(**data["canvas"]),
            num_frames=data["num_frames"],
            fps=data["fps"],
            objects=tuple(_object_from_dict(item, folder) for item in data["objects"]),
            sparse_frames=None if sparse_frames is None else tuple(sparse_frames),
        )

    def to_dict(self) -> dict[str, Any]:
        """The trajectory as data for JSON, with masks as run lengths."""
        return {
            "version": VERSION,
            "canvas": {"width": self.canvas.width, "height": self.canvas.height},
            "num_frames": self.num_frames,
            "fps": self.fps,
            "objects": [_object_to_dict(item) for item in self.objects],
            "sparse_frames": None if self.sparse_frames is None else list(self.sparse_frames),
        }

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Reads a `trajectory.json`.

        Raises:
          UserError: The file is missing, not JSON, or invalid; the message lists all problems.
        """
        path = Path(path)
        require_file(path, "trajectory", "give the path of a trajectory.json")
        data = read_json_value(path, "format: docs/trajectories.md")
        try:
            return cls.from_dict(data, path.parent)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Writes a self-contained `trajectory.json`, with masks as run lengths."""
        text = json.dumps(self.to_dict(), indent=1, default=np.generic.item)
        # Lists of numbers are shorter and easier to read on one line.
        text = re.sub(r"\[\n[-+.,eE\d\s]*\]", lambda numbers: "".join(numbers[0].split()), text)
        with replacing(path) as scratch:
            scratch.write_text(text + "\n", encoding="utf-8")


def _object_from_dict(data: dict[str, Any], folder: Path | None) -> TrackedObject:
    keyframes = [
        Keyframe(key["frame"], tuple(key["box"]), key.get("ease", "linear"))
        for key in data.get("keyframes", ())
    ]
    points = data.get("points")
    return TrackedObject(
        id=data["id"],
        keyframes=tuple(keyframes),
        name=data.get("name", ""),
        color=data.get("color"),
        mask=_mask_from_dict(data.get("mask"), folder),
        points=points and tuple(point and (point[0], point[1]) for point in points),
    )


def _mask_from_dict(data: dict[str, Any] | str | None, folder: Path | None) -> Mask | None:
    if isinstance(data, str) and folder is not None:
        return read_mask_png(folder, data)
    if isinstance(data, dict):
        return Mask(tuple(data["size"]), tuple(data["counts"]))
    return None


def _object_to_dict(item: TrackedObject) -> dict[str, Any]:
    mask = item.mask
    if item.points is None or item.keyframes:
        keyframes = [
            {"frame": key.frame, "box": list(key.box), "ease": key.ease} for key in item.keyframes
        ]
        motion: dict[str, Any] = {"keyframes": keyframes}
    else:
        motion = {}
    if item.points is not None:
        motion["points"] = [point and list(point) for point in item.points]
    return {
        "id": item.id,
        "name": item.name,
        "color": item.color,
        "mask": mask and {"size": list(mask.size), "counts": list(mask.counts)},
        **motion,
    }


def _raise_problems(problems: list[str]) -> None:
    if problems:
        count = f"{len(problems)}{' or more' if len(problems) == MAX_PROBLEMS else ''}"
        raise UserError("\n  ".join([f"problems in the trajectory: {count}", *problems]))
