"""`trajectory.json`, this project's own format: docs/trajectories.md."""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.trajectory.formats.base import (
    ExportRequest,
    Format,
    Imported,
    ImportOptions,
    holds_json_list,
    json_file,
)
from flashmotion_jax.trajectory.schema import Trajectory


def _recognizes(path: Path) -> bool:
    file = json_file(path)
    return file is not None and not holds_json_list(file)


def _read(path: Path, options: ImportOptions) -> Imported:
    return Imported(Trajectory.load(json_file(path) or path))


def _write(request: ExportRequest, folder: Path) -> Path:
    file = folder / "trajectory.json"
    request.trajectory.save(file)
    return file


TRAJECTORY_JSON = Format(
    name="trajectory",
    title="trajectory.json",
    suffixes=(".json",),
    limits="",
    recognizes=_recognizes,
    read=_read,
    write=_write,
)
