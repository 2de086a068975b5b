"""A row of a MagicData folder: its maps as a trajectory, its first frame, its caption."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from flashmotion_jax.media.frames import find_path, find_video, image_files, iterate_frames
from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.media.images import read_image
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats.base import (
    ExportRequest,
    Format,
    Imported,
    ImportOptions,
    files_of,
    zip_folder,
)
from flashmotion_jax.trajectory.formats.magicdata_csv import Row, read_rows
from flashmotion_jax.trajectory.formats.magicmotion import read_magicmotion
from flashmotion_jax.trajectory.schema import Trajectory


def _read(path: Path, options: ImportOptions) -> Imported:
    file = files_of(path, (".csv",))[0]
    root = file.parent
    boxes = root / ("boxs" if (root / "boxs").is_dir() else "boxes")
    rows = [row for row in read_rows(file) if isinstance(row, Row)]
    for row in rows:
        folders = [find_path(folder, row.id) for folder in (root / "masks", boxes)]
        if options.id in ("", row.id) and all(folder.is_dir() for folder in folders):
            trajectory = _trajectory(root, folders, row.id, options)
            return Imported(trajectory, _first_frame(root, row.id), row.caption)
    wanted = f"row {options.id!r}" if options.id else "any of its rows"
    raise UserError(f"{file}: no masks/ and boxs/ of {wanted} beside it")


def _trajectory(
    root: Path, folders: Sequence[Path], row_id: str, options: ImportOptions
) -> Trajectory:
    own = root / "trajectories" / f"{row_id}.json"
    if own.is_file():
        return Trajectory.load(own)
    masks, outlines = map(image_files, folders)
    with TemporaryDirectory() as joined:
        # Frame 0 shows the masks, as in the maps that the model gets.
        for k, file in enumerate([*masks[:1], *outlines[1:]]):
            Path(joined, f"{k:05d}{file.suffix}").write_bytes(file.read_bytes())
        return read_magicmotion(joined, options.map_kind)


def _first_frame(root: Path, row_id: str) -> np.ndarray | None:
    still = root / "first_frames" / f"{row_id}.png"
    if still.is_file():
        return read_image(still)
    video = find_video(root / "videos", row_id)
    return next(iterate_frames(video), None) if video.exists() else None


def _write(request: ExportRequest, folder: Path) -> Path:
    """Writes a folder of one row; without a generated video, `videos/` stays empty."""
    root, row_id = folder / "magicdata", request.stem
    for name, map_kind in (("masks", "mask"), ("boxs", request.map_kind)):
        _write_maps(root / name / row_id, request.maps(map_kind))
    if request.image:
        (root / "first_frames").mkdir()
        image = read_image(request.image)
        frame = fit_frames(image, request.height, request.width, request.resize)
        Image.fromarray(frame).save(root / "first_frames" / f"{row_id}.png")
    (root / "videos").mkdir()
    if request.video:
        (root / "videos" / f"{row_id}.mp4").write_bytes(request.video.read_bytes())
    request.trajectory.save(root / "trajectories" / f"{row_id}.json")
    facts = {
        "path": f"videos/{row_id}.mp4",
        "text": request.prompt,
        "num_frames": request.num_frames,
        "height": request.height,
        "width": request.width,
        "fps": request.fps,
        "num_objects": len(request.trajectory.objects),
    }
    with (root / "MagicData.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([facts.keys(), facts.values()])
    return zip_folder(root, folder / f"{row_id}-magicdata.zip")


def _write_maps(folder: Path, maps_FHW3: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for k, frame in enumerate(maps_FHW3):
        Image.fromarray(frame).save(folder / f"annotated_frame_{k:05d}.png")


MAGICDATA = Format(
    name="magicdata",
    title="MagicData folder",
    suffixes=(".csv",),
    limits="",
    read=_read,
    write=_write,
    writes_maps=True,
)
