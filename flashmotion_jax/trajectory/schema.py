"""Trajectories: what the user wants to move where, as data and as `trajectory.json` (format v1).

The first thing in the flow that belongs to the user: drawn in an editor, imported or written by
hand, then rendered to the maps that the adapter sees.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.keyframes import Keyframe, interpolate
from flashmotion_jax.trajectory.masks import Mask, read_mask_png
from flashmotion_jax.trajectory.palette import palette_color
from flashmotion_jax.trajectory.validation import VERSION, find_faults, with_current_names


@dataclass(frozen=True)
class Canvas:
    """The picture that boxes are fractions of: the image's own size, in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class TrackedObject:
    """An object that follows a box.

    Attributes:
      id: From 1; objects with higher ids are drawn over lower ones.
      keyframes: In order of time, at least one.
      name: For people.
      color: "#rrggbb", or None for the color MagicData gives the id.
      mask: On frame 0, of the canvas's size; None: the filled box stands for it.
    """

    id: int
    keyframes: tuple[Keyframe, ...]
    name: str = ""
    color: str | None = None
    mask: Mask | None = None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The color in the maps, 0..255."""
        if self.color is None:
            return palette_color(self.id)
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


@dataclass(frozen=True)
class Trajectory:
    """The motion of a video's objects.

    Attributes:
      canvas: The picture the boxes are fractions of.
      num_frames: Length of the motion.
      fps: Frames per second.
      objects: Any number.
      sparse_frames: The frames on which boxes are drawn; None: on all.

    Raises:
      UserError: On construction, with every fault in one message.
    """

    canvas: Canvas
    num_frames: int
    fps: float
    objects: tuple[TrackedObject, ...]
    sparse_frames: tuple[int, ...] | None = None

    def __post_init__(self):
        _raise_faults(find_faults(self.to_dict()))

    def boxes(self, num_frames: int | None = None) -> np.ndarray:
        """The box of every object on every frame.

        Args:
          num_frames: The motion is stretched to this many frames; None: as it is.

        Returns:
          float64 [K, F, 4], (x0, y0, x1, y1) in 0..1 of the canvas.
        """
        times_F = np.linspace(0, self.num_frames - 1, num_frames or self.num_frames)
        boxes = [interpolate(item.keyframes, times_F) for item in self.objects]
        return np.array(boxes).reshape(-1, len(times_F), 4)

    def drawn(self, num_frames: int | None = None) -> np.ndarray:
        """The frames that are not left black, after stretching: bool [F]. Frame 0 always is one."""
        length = num_frames or self.num_frames
        if self.sparse_frames is None:
            return np.ones(length, bool)
        frames = np.array(self.sparse_frames, np.float64)
        stretched = np.rint(frames * (length - 1) / max(self.num_frames - 1, 1))
        # Frame 0 shows masks: a box of a later frame must not end up there and vanish.
        stretched = np.minimum(np.maximum(stretched, frames > 0), length - 1)
        drawn = np.zeros(length, bool)
        drawn[[0, *stretched.astype(int)]] = True
        return drawn

    @classmethod
    def from_dict(cls, data: Any, folder: str | Path | None = None) -> Trajectory:
        """Builds a trajectory from the data of a file.

        Args:
          data: What the JSON holds.
          folder: Where the masks' PNGs lie; None: only run lengths are allowed.

        Raises:
          UserError: With every fault in one message.
        """
        folder = None if folder is None else Path(folder)
        data = with_current_names(data)
        _raise_faults(find_faults(data, folder))
        sparse_frames = data.get("sparse_frames")
        return cls(
            canvas=Canvas(**data["canvas"]),
            num_frames=data["num_frames"],
            fps=data["fps"],
            objects=tuple(_object_from_dict(item, folder) for item in data["objects"]),
            sparse_frames=None if sparse_frames is None else tuple(sparse_frames),
        )

    def to_dict(self) -> dict[str, Any]:
        """The data of the file, masks as run lengths."""
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
          UserError: The file is missing, is no JSON, or has faults: all in one message.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"no trajectory at {path}: give the path of a trajectory.json")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is not JSON ({error}); format: docs/trajectories.md"
            ) from error
        try:
            return cls.from_dict(data, path.parent)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Writes a `trajectory.json` that needs no other file: masks go in as run lengths."""
        text = json.dumps(self.to_dict(), indent=1, default=np.generic.item)
        # Lists of numbers read better, and take less room, on one line.
        text = re.sub(r"\[\n[-+.,eE\d\s]*\]", lambda numbers: "".join(numbers[0].split()), text)
        with replacing(path) as scratch:
            scratch.write_text(text + "\n", encoding="utf-8")


def _object_from_dict(data: dict[str, Any], folder: Path | None) -> TrackedObject:
    keyframes = [
        Keyframe(key["frame"], tuple(key["box"]), key.get("ease", "linear"))
        for key in data["keyframes"]
    ]
    return TrackedObject(
        id=data["id"],
        keyframes=tuple(keyframes),
        name=data.get("name", ""),
        color=data.get("color"),
        mask=_mask_from_dict(data.get("mask"), folder),
    )


def _mask_from_dict(data: dict[str, Any] | str | None, folder: Path | None) -> Mask | None:
    if isinstance(data, str) and folder is not None:
        return read_mask_png(folder, data)
    if isinstance(data, dict):
        return Mask(tuple(data["size"]), tuple(data["counts"]))
    return None


def _object_to_dict(item: TrackedObject) -> dict[str, Any]:
    mask = item.mask
    return {
        "id": item.id,
        "name": item.name,
        "color": item.color,
        "mask": mask and {"size": list(mask.size), "counts": list(mask.counts)},
        "keyframes": [
            {"frame": key.frame, "box": list(key.box), "ease": key.ease} for key in item.keyframes
        ],
    }


def _raise_faults(faults: list[str]) -> None:
    if faults:
        raise UserError("\n  ".join([f"faults in the trajectory: {len(faults)}", *faults]))
