"""The table of a MagicData folder: a row for each video, with its caption."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from flashmotion_jax.media.frames import VIDEO_SUFFIXES
from flashmotion_jax.runtime.errors import UserError

#: Field -> accepted names of its CSV column.
_ALIASES = {
    "path": ("path", "video", "video_path"),
    "text": ("text", "caption", "prompt"),
    "num_frames": ("num_frames",),
}


class RowError(UserError):
    """A row of the CSV that cannot be used.

    Attributes:
      row: Number of the row, counted from 0 after the header.
      id: Id of the video, or the path in the CSV if it contains none.
      reason: What is wrong.
    """

    def __init__(self, row: int, id: str, reason: str):
        super().__init__(f"row {row} ({id}): {reason}")
        self.row = row
        self.id = id
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the CSV: its number, counted from 0 after the header, and its fields."""

    number: int
    id: str
    caption: str
    num_frames: int | None


def find_csv(root: Path, name: Path) -> Path:
    """Finds the CSV of a MagicData folder.

    Args:
      root: The MagicData folder.
      name: File name in the folder, or a path.

    Raises:
      UserError: There is no such file.
    """
    for path in (root / name, name):
        if path.is_file():
            return path
    raise UserError(
        f"no {root / name}: expected the MagicData folder, with {name} next to videos/, masks/ and "
        "boxs/; pass its path, or the path of the CSV"
    )


def read_rows(path: Path) -> list[Row | RowError]:
    """Reads the rows of a MagicData CSV, without looking at their files.

    Returns:
      The rows in order; `RowError` for rows without an id or with that of an earlier row.

    Raises:
      UserError: The file is not a CSV in UTF-8, or a column is missing.
    """
    rows: list[Row | RowError] = []
    first_with: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = _columns(reader.fieldnames or [], path)
            for number, values in enumerate(reader):
                row = _parse_row(number, values, columns)
                if isinstance(row, Row) and first_with.setdefault(row.id, number) != number:
                    reason = f"row {first_with[row.id]} has the same video"
                    row = RowError(number, row.id, reason)
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV in UTF-8 ({error}): download it again") from error
    return rows


def _columns(header: Iterable[str], path: Path) -> dict[str, str]:
    """Returns the name of each field's column."""
    there = {name.strip().lower(): name for name in header}
    columns = {
        wanted: there[name]
        for wanted, names in _ALIASES.items()
        for name in reversed(names)
        if name in there
    }
    for wanted in ("path", "text"):
        if wanted not in columns:
            raise UserError(
                f"{path} has the columns {', '.join(there) or '(none)'}; expected one of "
                f"{', '.join(_ALIASES[wanted])}"
            )
    return columns


def _parse_row(
    number: int, values: Mapping[str, str | None], columns: Mapping[str, str]
) -> Row | RowError:
    path, caption, count = (
        (values.get(columns.get(name, "")) or "").strip() for name in ("path", "text", "num_frames")
    )
    # Only the last component is used, so no row can refer to a file outside the data root.
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    id = name[:-4] if name.lower().endswith(VIDEO_SUFFIXES) else name
    if id in ("", ".", "..") or "\0" in id:
        return RowError(number, path, "the path does not end in the name of a video")
    if caption.lower() == "nan":
        caption = ""
    return Row(number, id, caption, _whole_number(count))


def _whole_number(text: str) -> int | None:
    """Parses a number of frames; None if it is not one, as then the video itself decides."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if math.isfinite(value) else None
