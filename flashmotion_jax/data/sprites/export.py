"""Export of Sprites as a MagicData folder, for the loaders of real data.

    ROOT/MagicData.csv, videos/<id>.mp4, masks/<id>/, boxs/<id>/     as in MagicData
    ROOT/trajectories/<id>.json, first_frames/<id>.png               what sampling is given
    ROOT/sprites.json                                                configuration of the clips

The trajectory of a row is written last and marks it as complete; the CSV is written after all rows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from flashmotion_jax.data.sprites.captions import describe
from flashmotion_jax.data.sprites.clips import VERSION, Clip, Sprites, draw_maps
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.lock import sole_writer

_COLUMNS = ("path", "text", "num_frames", "height", "width", "fps", "num_objects")


def export(
    source: Sprites | Sequence[Sprites],
    root: str | Path,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Writes clips in MagicData's layout. After an interruption, call it again to resume.

    Args:
      source: Source of the clips; several are written to one folder.
      root: Output folder, created if it does not exist.
      progress: Called after each row with the number of finished rows and the total.

    Returns:
      The CSV.

    Raises:
      UserError: The folder contains clips of other sources, or other files.
    """
    root = Path(root)
    parts = [source] if isinstance(source, Sprites) else list(source)
    with sole_writer(root):
        _claim(root, parts)
        total = sum(len(part) for part in parts)
        rows = []
        for part in parts:
            for index in range(len(part)):
                if not _trajectory_path(root, part.id(index)).is_file():
                    write_clip(root, part[index])
                rows.append(_csv_row(part, index))
                if progress is not None:
                    progress(len(rows), total)
        path = root / "MagicData.csv"
        with replacing(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_COLUMNS, *rows])
        return path


def write_clip(root: Path, clip: Clip) -> None:
    """Writes all files of a clip, its trajectory last.

    The video is H.264 without loss in RGB. Mask maps show the visible parts in every
    frame; box maps are rendered from the trajectory.
    """
    masks, boxes = draw_maps(clip)
    _write_maps(root / "masks" / clip.id, masks)
    _write_maps(root / "boxs" / clip.id, boxes)
    (root / "first_frames").mkdir(exist_ok=True)
    _write_image(root / "first_frames" / f"{clip.id}.png", clip.video[0])
    write_video(root / "videos" / f"{clip.id}.mp4", clip.video, clip.trajectory.fps, lossless=True)
    clip.trajectory.save(_trajectory_path(root, clip.id))


def _write_maps(folder: Path, maps_FHWC: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(maps_FHWC):
        _write_image(folder / f"annotated_frame_{i:05d}.png", frame)


def _write_image(path: Path, pixels_HWC: np.ndarray) -> None:
    # Without a temporary name, which would double the time: the trajectory marks the row as
    # complete.
    Image.fromarray(pixels_HWC).save(path, compress_level=1)


def _trajectory_path(root: Path, id: str) -> Path:
    return root / "trajectories" / f"{id}.json"


def _csv_row(source: Sprites, index: int) -> list[str | int]:
    scene, config = source.scene(index), source.config
    path = f"videos/{source.id(index)}.mp4"
    size = [config.num_frames, config.height, config.width, config.fps]
    return [path, describe(scene), *size, len(scene.sprites)]


def _claim(root: Path, sources: Sequence[Sprites]) -> None:
    """Claims an empty folder, or one that was written from the same sources."""
    # Without the counts, because more clips can be added to a folder.
    described = [
        {
            "split": source.split,
            "seed": source.seed,
            "num_objects": source.num_objects,
            "config": asdict(source.config),
        }
        for source in sources
    ]
    made_with = json.dumps({"version": VERSION, "sources": described}, indent=1) + "\n"
    path = root / "sprites.json"
    if path.is_file():
        if path.read_text(encoding="utf-8") != made_with:
            raise UserError(f"{root} holds other clips, see {path}: give a new folder")
    elif root.exists() and (not root.is_dir() or any(root.glob("[!.]*"))):
        raise UserError(f"{root} holds something other than sprites: give a new folder")
    else:
        with replacing(path) as scratch:
            scratch.write_text(made_with, encoding="utf-8")
