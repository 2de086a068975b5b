"""Wan-Move's and MoveBench's tracks: an `.npy` file of points and one of visibility."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from flashmotion_jax.media.videos import open_array
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import check_num_boxes
from flashmotion_jax.trajectory.formats.base import (
    ExportRequest,
    Format,
    Imported,
    ImportOptions,
    as_numbers,
    files_of,
    imported_tracks,
    zip_folder,
)
from flashmotion_jax.trajectory.formats.magicmotion import is_map_array
from flashmotion_jax.trajectory.tracks import Tracks, tracks_from_boxes

_SUFFIXES = (".npy",)


def read_wan_move(path: str | Path, visibility_path: str | Path | None = None) -> Tracks:
    """Reads Wan-Move tracks.

    Args:
      path: `.npy` file of [F, N, 2] or [1, F, N, 2], (x, y) in pixels.
      visibility_path: `.npy` file of [F, N] or [1, F, N]; None: all points are always visible.

    Raises:
      UserError: A file is missing or not an array of numbers, or the shapes do not match.
    """
    points = _read_npy(path)
    if points.ndim == 4 and len(points) == 1:
        points = points[0]
    if visibility_path is None:
        return Tracks(points, np.ones(points.shape[:2], bool))
    visible = _read_npy(visibility_path)
    if visible.ndim == 3 and len(visible) == 1:
        visible = visible[0]
    return Tracks(points, visible > 0.5)


def write_wan_move(tracks: Tracks, path: str | Path, visibility_path: str | Path) -> None:
    """Writes points, float32 [1, F, N, 2], and visibility, bool [1, F, N], like MoveBench."""
    for target, array in (
        (path, tracks.points_FN2[None].astype(np.float32)),
        (visibility_path, tracks.visible_FN[None]),
    ):
        with replacing(target) as scratch, scratch.open("wb") as file:
            np.save(file, array)


def _read_npy(path: str | Path) -> np.ndarray:
    array = open_array(Path(path))
    shape = array.shape[:-1] if array.shape[-1:] == (2,) else array.shape
    if shape:  # positions or visibility, before they are copied
        check_num_boxes(shape[-1], math.prod(shape[:-1]), path)
    return as_numbers(array, path)


def _recognizes(path: Path) -> bool:
    files = files_of(path, _SUFFIXES)
    return bool(files) and not is_map_array(files[0])


def _read(path: Path, options: ImportOptions) -> Imported:
    files = files_of(path, _SUFFIXES)
    shapes = {file: _read_npy(file).shape for file in files}
    points = [file for file in files if shapes[file][-1:] == (2,)]
    if not points:
        raise UserError(f"{files[0]}: {list(shapes[files[0]])}, expected tracks [F, N, 2]")
    others = [file for file in files if file not in points]
    # The visibility of two points also ends in a 2, but has a dimension less.
    points.sort(key=lambda file: (-len(shapes[file]), "vis" in file.name.lower()))
    visibility = [*others, *points[1:]]
    tracks = read_wan_move(points[0], visibility[0] if visibility else None)
    return imported_tracks(tracks, options)


def _write(request: ExportRequest, folder: Path) -> Path:
    files = folder / "tracks"
    tracks = tracks_from_boxes(request.trajectory)
    write_wan_move(tracks, files / "tracks.npy", files / "visibility.npy")
    return zip_folder(files, folder / f"{request.stem}-wan-move.zip")


WAN_MOVE = Format(
    name="wan_move",
    title="Wan-Move tracks",
    suffixes=_SUFFIXES,
    limits="sizes of boxes, masks, names and the frame rate",
    recognizes=_recognizes,
    read=_read,
    write=_write,
)
