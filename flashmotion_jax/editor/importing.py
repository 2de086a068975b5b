"""Files of any known format to a trajectory: which format it is, is found by what is there."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from flashmotion_jax.config import MapKind
from flashmotion_jax.data.magicdata import Row, read_rows
from flashmotion_jax.editor.uploads import unpack
from flashmotion_jax.media.frames import find_video, iterate_frames
from flashmotion_jax.media.images import read_image
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import (
    Canvas,
    Tracks,
    Trajectory,
    boxes_from_tracks,
    objects_from_label_png,
)
from flashmotion_jax.trajectory.formats import (
    import_magicmotion,
    read_ati,
    read_spline,
    read_wan_move,
)

_VIDEOS = (".mp4", ".mkv", ".mov", ".webm")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class Given(NamedTuple):
    """What a file itself may not say.

    Attributes:
      canvas: the picture that point tracks are in pixels of.
      num_frames: of what is only a picture.
      fps: of what has no rate of its own.
      box_size: (width, height) in pixels, of the boxes around point tracks.
      map_kind: what a map video shows after its first frame.
      id: row of a MagicData folder; empty: its first.
    """

    canvas: Canvas
    num_frames: int
    fps: float
    box_size: tuple[float, float]
    map_kind: MapKind
    id: str = ""


class Imported(NamedTuple):
    """What was read.

    Attributes:
      format: its name, for people.
      trajectory: the motion.
      image: first frame as uint8 [H, W, 3], if there was one.
      prompt: if there was one.
    """

    format: str
    trajectory: Trajectory
    image: np.ndarray | None = None
    prompt: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON, the image as a PNG in base64."""
        encoded = None
        if self.image is not None:
            png = io.BytesIO()
            Image.fromarray(self.image).save(png, "PNG")
            encoded = base64.b64encode(png.getvalue()).decode()
        return {
            "format": self.format,
            "trajectory": self.trajectory.to_dict(),
            "image": encoded,
            "prompt": self.prompt,
        }


def import_files(folder: Path, given: Given) -> Imported:
    """Reads whatever lies in a folder.

    Args:
      folder: with the files that were sent, or one zip of them, which is unpacked there.
      given: see `Given`.

    Raises:
      UserError: nothing there is known, or it is damaged.
      ImportError: an ATI file, without torch.
    """
    files = _files(folder)
    if len(files) == 1 and files[0].suffix.lower() == ".zip":
        archive, folder = files[0], folder / "unpacked"
        unpack(archive, folder)
        files = _files(folder)
    if not files:
        raise UserError("no file was sent: choose one")
    for suffixes, read in (
        ((".csv",), _magicdata),
        ((".json",), _json),
        ((".npy",), _npy),
        ((".pth", ".pt"), _ati),
        (_VIDEOS, _video),
        (_PICTURES, _pictures),
    ):
        if found := [file for file in files if file.suffix.lower() in suffixes]:
            return read(found, given)
    known = ".json .mp4 .png .npy .pth .csv .zip"
    raise UserError(f"{files[0].name}: no known format; expected one of {known}")


def _files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".") and "__MACOSX" not in file.parts
    )


def _json(files: list[Path], given: Given) -> Imported:
    file = next((one for one in files if one.name == "trajectory.json"), files[0])
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file.name} is not JSON ({error})") from None
    if isinstance(data, list | str):
        return _tracks("ComfyUI splines", read_spline(file), given)
    return Imported("trajectory.json", Trajectory.load(file))


def _npy(files: list[Path], given: Given) -> Imported:
    arrays = {}
    for file in files:
        try:
            arrays[file] = np.load(file, allow_pickle=False, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{file.name} is not an npy file of numbers: {error}") from None
    first = arrays[files[0]]
    if first.dtype == np.uint8 and first.ndim == 4 and first.shape[-1] == 3:
        return _video(files, given)
    points = [file for file, array in arrays.items() if array.shape[-1:] == (2,)]
    others = [file for file in files if file not in points]
    # Two points a frame make visibility look like points, but then it lacks a dimension.
    points.sort(key=lambda file: (-arrays[file].ndim, "vis" in file.name.lower()))
    if not points:
        raise UserError(f"{files[0].name}: {list(first.shape)}, expected tracks [F, N, 2]")
    visibility = [*others, *points[1:]]
    tracks = read_wan_move(points[0], visibility[0] if visibility else None)
    return _tracks("Wan-Move tracks", tracks, given)


def _ati(files: list[Path], given: Given) -> Imported:
    return _tracks("ATI tracks", read_ati(files[0]), given)


def _tracks(name: str, tracks: Tracks, given: Given) -> Imported:
    return Imported(name, boxes_from_tracks(tracks, given.canvas, given.box_size, given.fps))


def _video(files: list[Path], given: Given) -> Imported:
    return Imported("MagicMotion map video", import_magicmotion(files[0], given.map_kind))


def _pictures(files: list[Path], given: Given) -> Imported:
    if len(files) > 1:
        return Imported("MagicMotion PNGs", import_magicmotion(files[0].parent, given.map_kind))
    objects = objects_from_label_png(files[0])
    mask = objects[0].mask
    assert mask is not None  # each has one, by `objects_from_label_png`
    canvas = Canvas(mask.size[1], mask.size[0])
    return Imported("label picture", Trajectory(canvas, given.num_frames, given.fps, objects))


def _magicdata(files: list[Path], given: Given) -> Imported:
    rows = [row for row in read_rows(files[0]) if isinstance(row, Row)]
    wanted = [row for row in rows if given.id in ("", row.id)]
    root = files[0].parent
    boxes = root / ("boxs" if (root / "boxs").is_dir() else "boxes")
    there = [
        row for row in wanted if (boxes / row.id).is_dir() and (root / "masks" / row.id).is_dir()
    ]
    if not there:
        asked = f"row {given.id!r}" if given.id else "any of its rows"
        raise UserError(f"{files[0].name}: no masks/ and boxs/ of {asked} beside it")
    row = there[0]
    trajectory_file = root / "trajectories" / f"{row.id}.json"
    if trajectory_file.is_file():
        trajectory = Trajectory.load(trajectory_file)
    else:
        # Frame 0 holds the masks, as in the maps that the model is given.
        mask_files, box_files = (
            sorted((part / row.id).glob("*.png")) for part in (root / "masks", boxes)
        )
        joined = root / "joined"
        joined.mkdir()
        for k, file in enumerate([*mask_files[:1], *box_files[1:]]):
            (joined / f"{k:05d}.png").write_bytes(file.read_bytes())
        trajectory = import_magicmotion(joined, given.map_kind)
    return Imported("MagicData", trajectory, _first_frame(root, row.id), row.caption)


def _first_frame(root: Path, row_id: str) -> np.ndarray | None:
    still = root / "first_frames" / f"{row_id}.png"
    if still.is_file():
        return read_image(still)
    video = find_video(root / "videos", row_id)
    return next(iterate_frames(video), None) if video.exists() else None
