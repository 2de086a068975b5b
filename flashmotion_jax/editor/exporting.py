"""A trajectory to the formats of this project and of others, one file or a zip of several."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from PIL import Image

from flashmotion_jax.config import MapKind
from flashmotion_jax.media.images import cover_crop, read_image
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import Trajectory, render, tracks_from_boxes
from flashmotion_jax.trajectory.formats import write_ati, write_spline, write_wan_move

#: Bytes of maps that are made at once.
_MAX_MAPS = 2 * 2**30


class Wanted(NamedTuple):
    """What shall be written.

    Attributes:
      trajectory: the motion.
      name: of the project; files are named by it.
      size: (height, width) of maps in pixels.
      num_frames: of maps.
      fps: of map videos.
      map_kind: what maps show.
      prompt: for a row of MagicData.
      image: first frame, for MagicData.
      video: a generated video of `size` and `num_frames`, for MagicData.
    """

    trajectory: Trajectory
    name: str
    size: tuple[int, int]
    num_frames: int
    fps: float
    map_kind: MapKind
    prompt: str = ""
    image: Path | None = None
    video: Path | None = None

    @property
    def stem(self) -> str:
        """The name as that of a file."""
        return re.sub(r"[^\w-]+", "-", self.name).strip("-_")[:60] or "trajectory"

    def maps(self, map_kind: MapKind) -> np.ndarray:
        """Renders maps, those that the model gets.

        Raises:
          UserError: they are too many pixels.
        """
        height, width = self.size
        if self.num_frames * height * width * 3 > _MAX_MAPS:
            raise UserError(
                f"{self.num_frames} maps of {width} x {height} take more than 2 GB: choose a "
                "smaller size, that of the model"
            )
        return render(self.trajectory, height, width, map_kind, num_frames=self.num_frames)


def export(wanted: Wanted, kind: str, folder: Path) -> Path:
    """Writes a trajectory.

    Args:
      wanted: what.
      kind: one of `FORMATS`.
      folder: where.

    Returns:
      The file.

    Raises:
      UserError: the format is unknown, or cannot say this trajectory.
      ImportError: ATI, without torch.
    """
    if kind not in FORMATS:
        raise UserError(f"format={kind!r}; expected {', '.join(FORMATS)}")
    if not wanted.trajectory.objects and kind != "trajectory":
        raise UserError("there is no object to export: draw one, or show a hidden one")
    return FORMATS[kind](wanted, folder)


def _trajectory(wanted: Wanted, folder: Path) -> Path:
    file = folder / "trajectory.json"
    wanted.trajectory.save(file)
    return file


def _map_video(wanted: Wanted, folder: Path) -> Path:
    file = folder / f"{wanted.stem}-maps.mp4"
    write_video(file, wanted.maps(wanted.map_kind), wanted.fps, lossless=True)
    return file


def _map_pictures(wanted: Wanted, folder: Path) -> Path:
    write_video(folder / "maps", wanted.maps(wanted.map_kind))
    return _zip(folder / "maps", folder / f"{wanted.stem}-maps.zip")


def _wan_move(wanted: Wanted, folder: Path) -> Path:
    files = folder / "tracks"
    tracks = tracks_from_boxes(wanted.trajectory)
    write_wan_move(tracks, files / "tracks.npy", files / "visibility.npy")
    return _zip(files, folder / f"{wanted.stem}-wan-move.zip")


def _ati(wanted: Wanted, folder: Path) -> Path:
    file = folder / f"{wanted.stem}-ati.pth"
    write_ati(tracks_from_boxes(wanted.trajectory), file)
    return file


def _spline(wanted: Wanted, folder: Path) -> Path:
    file = folder / f"{wanted.stem}-spline.json"
    write_spline(tracks_from_boxes(wanted.trajectory), file)
    return file


def _magicdata(wanted: Wanted, folder: Path) -> Path:
    """A folder of one row. Without a generated video, its video is its owner's to add."""
    root, row = folder / "magicdata", wanted.stem
    height, width = wanted.size
    for name, map_kind in (("masks", "mask"), ("boxs", wanted.map_kind)):
        _write_maps(root / name / row, wanted.maps(map_kind))
    if wanted.image:
        (root / "first_frames").mkdir()
        frame = cover_crop(read_image(wanted.image), height, width)
        Image.fromarray(frame).save(root / "first_frames" / f"{row}.png")
    (root / "videos").mkdir()
    if wanted.video:
        (root / "videos" / f"{row}.mp4").write_bytes(wanted.video.read_bytes())
    wanted.trajectory.save(root / "trajectories" / f"{row}.json")
    with (root / "MagicData.csv").open("w", newline="", encoding="utf-8") as file:
        count = len(wanted.trajectory.objects)
        size = (wanted.num_frames, height, width, wanted.fps)
        csv.writer(file).writerows(
            [
                ("path", "text", "num_frames", "height", "width", "fps", "num_objects"),
                (f"videos/{row}.mp4", wanted.prompt, *size, count),
            ]
        )
    return _zip(root, folder / f"{row}-magicdata.zip")


def _write_maps(folder: Path, maps_FHW3: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for k, frame in enumerate(maps_FHW3):
        Image.fromarray(frame).save(folder / f"annotated_frame_{k:05d}.png")


def _zip(folder: Path, file: Path) -> Path:
    with ZipFile(file, "w", ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return file


FORMATS: dict[str, Callable[[Wanted, Path], Path]] = {
    "trajectory": _trajectory,
    "magicmotion_mp4": _map_video,
    "magicmotion_png": _map_pictures,
    "wan_move": _wan_move,
    "ati": _ati,
    "spline": _spline,
    "magicdata": _magicdata,
}
"""Name -> what writes it."""
