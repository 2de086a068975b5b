"""Trajectories in the formats of other projects: one file for each format, listed in `FORMATS`.

`load_maps` (and so `--trajectory`) and the editor's import and export all use this table.
"""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats.ati import ATI, read_ati, write_ati
from flashmotion_jax.trajectory.formats.base import (
    ExportRequest,
    Format,
    Imported,
    ImportOptions,
    files_of,
)
from flashmotion_jax.trajectory.formats.label_image import LABEL_IMAGE
from flashmotion_jax.trajectory.formats.magicdata import MAGICDATA
from flashmotion_jax.trajectory.formats.magicmotion import (
    MAP_IMAGES,
    MAP_VIDEO,
    read_magicmotion,
    write_magicmotion,
)
from flashmotion_jax.trajectory.formats.spline import SPLINE, read_spline, write_spline
from flashmotion_jax.trajectory.formats.trajectory_json import TRAJECTORY_JSON
from flashmotion_jax.trajectory.formats.wan_move import WAN_MOVE, read_wan_move, write_wan_move

__all__ = [
    "FORMATS",
    "ExportRequest",
    "Format",
    "ImportOptions",
    "Imported",
    "files_of",
    "find_format",
    "read_ati",
    "read_magicmotion",
    "read_spline",
    "read_trajectory",
    "read_wan_move",
    "write_ati",
    "write_magicmotion",
    "write_spline",
    "write_trajectory",
    "write_wan_move",
]

# In the order in which they are asked whether they recognize a path. MagicData comes first, because
# its folders hold files of other formats.
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        MAGICDATA,
        TRAJECTORY_JSON,
        SPLINE,
        WAN_MOVE,
        ATI,
        MAP_VIDEO,
        MAP_IMAGES,
        LABEL_IMAGE,
    )
}


def find_format(path: str | Path) -> Format:
    """Finds the format of a file or folder.

    Raises:
      UserError: There is nothing at the path, or no format recognizes it.
    """
    path = Path(path)
    for one in FORMATS.values():
        if one.read is not None and one.matches(path):
            return one
    known = " ".join(sorted({suffix for one in FORMATS.values() for suffix in one.suffixes}))
    if not path.exists():
        raise UserError(f"no trajectory at {path}: expected a folder, or a file with {known}")
    if path.is_dir():
        raise UserError(f"{path} holds no trajectory: expected files with {known}")
    raise UserError(f"{path}: no known format of trajectories; expected one of {known}")


def read_trajectory(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Reads a trajectory in any format of the table.

    Args:
      path: A file or a folder.
      options: What the file may leave open; None: the defaults.

    Raises:
      UserError: No format recognizes the path, or the file is damaged.
      ImportError: An ATI file without torch.
    """
    read = find_format(path).read
    assert read is not None  # `find_format` gives readable formats only
    try:
        return read(Path(path), options or ImportOptions())
    except UserError as error:
        name = Path(path).name  # of an upload, the folder means nothing to its sender
        if name in str(error):
            raise
        raise UserError(f"{name}: {error}") from error


def write_trajectory(name: str, request: ExportRequest, folder: str | Path) -> Path:
    """Writes a trajectory.

    Args:
      name: A format that is written, a key of `FORMATS`.
      request: What to write.
      folder: An empty folder to write into.

    Returns:
      The file; a format of several files is a zip.

    Raises:
      UserError: The format is unknown, or cannot express this trajectory.
      ImportError: ATI without torch.
    """
    writers = {one.name: one.write for one in FORMATS.values() if one.write is not None}
    if name not in writers:
        raise UserError(f"format={name!r}; expected {', '.join(writers)}")
    if not request.trajectory.objects and name != TRAJECTORY_JSON.name:
        raise UserError("there is no object to export: draw one, or show a hidden one")
    return writers[name](request, Path(folder))
