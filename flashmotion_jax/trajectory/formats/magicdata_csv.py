"""The table of a MagicData folder: a row for each video, with its caption.

A CSV in UTF-8 or UTF-16, separated by commas, semicolons, tabs or bars, or JSON objects, one on a
line or in a list. Rows that cannot be read with certainty are reported with their line, never
guessed.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashmotion_jax.media.frames import VIDEO_SUFFIXES
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json

#: Field -> accepted names of its column, in lower case; the first that is there counts.
_ALIASES = {
    "path": ("path", "video", "video_path", "file_name"),
    "text": ("text", "caption", "prompt"),
    "num_frames": ("num_frames",),
}
_NAMES = frozenset(name for names in _ALIASES.values() for name in names)
_REQUIRED = ("path", "text")
_DELIMITERS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: First bytes of files that are taken for a table -> what they are, and what to do.
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook or a zip: save the table as CSV",
    b"PAR1": "a Parquet file: save the table as CSV",
    b"version https://git-lfs": "a pointer of Git LFS to the file: run git lfs pull",
}
_EXPECTED_JSON = 'expected {"path": "a.mp4", "text": "a dog"} on each line'
#: Characters of a row that a message quotes.
_QUOTED = 100


class RowError(UserError):
    """A row of the table that cannot be used.

    Attributes:
      row: Number of the row, counted from 0 after the header.
      id: Id of the video, or the path in the table if it contains none.
      reason: What is wrong.
      line: Line of the file on which the row starts, counted from 1; None for rows without a file.
    """

    def __init__(self, row: int, id: str, reason: str, line: int | None = None):
        place = f"row {row}" if line is None else f"line {line}"
        super().__init__(f"{place}{id and f' ({id})'}: {reason}")
        self.row = row
        self.id = id
        self.reason = reason
        self.line = line


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: its number, counted from 0 after the header, its line, and its fields."""

    number: int
    line: int
    id: str
    caption: str
    num_frames: int | None

    def error(self, reason: str) -> RowError:
        """The reason why this row cannot be used."""
        return RowError(self.number, self.id, reason, self.line)


@dataclasses.dataclass(frozen=True)
class _Record:
    """The fields of a row by name, or what is wrong with it."""

    line: int
    fields: Mapping[str, str]
    problem: str = ""


def find_csv(root: Path, name: Path) -> Path:
    """Finds the table of a MagicData folder.

    Args:
      root: The MagicData folder.
      name: File name in the folder, or a path; the same name with `.jsonl` is found, too.

    Raises:
      UserError: There is no such file.
    """
    for path in (root / name, name, (root / name).with_suffix(".jsonl")):
        if path.is_file():
            return path
    tables = sorted(path.name for ext in ("csv", "tsv", "jsonl") for path in root.glob(f"*.{ext}"))
    there = f"; there is {', '.join(tables[:5])}" if tables else ""
    raise UserError(
        f"no {root / name}{there}: expected the MagicData folder, with {name} next to videos/, "
        "masks/ and boxs/; pass its path, or the path of the CSV"
    )


def read_rows(path: Path) -> list[Row | RowError]:
    """Reads the rows of a MagicData table, without looking at their files.

    Returns:
      The rows in order; `RowError` for rows that cannot be read with certainty, that have no id, or
      that of an earlier row.

    Raises:
      UserError: The file is not such a table, a column is missing, or one is named twice.
    """
    text = _decoded(path)
    read = _json_records if text.lstrip()[:1] in ("{", "[") else _csv_records
    rows: list[Row | RowError] = []
    first_with: dict[str, int] = {}
    for number, record in enumerate(read(text, path)):
        row = _parse_row(number, record)
        if isinstance(row, Row) and first_with.setdefault(row.id, row.line) != row.line:
            row = row.error(
                f"line {first_with[row.id]} has the same video; only the last part of a path "
                "counts: give videos different names"
            )
        rows.append(row)
    return rows


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    for head, what in _OTHER_FILES.items():
        if content.startswith(head):
            raise UserError(f"{path} is {what}")
    encodings = (name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark))
    encoding = next(encodings, json.detect_encoding(content[:64]))
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} is not a CSV in UTF-8 or UTF-16 (line {line}: {error.reason}): save it as "
            '"CSV UTF-8", or download it again'
        ) from error


def _csv_records(text: str, path: Path) -> Iterator[_Record]:
    lines = io.StringIO(text, newline="").readlines()
    first = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    header, delimiter = _header(lines[first:], path)
    reader = csv.reader(lines[first:], delimiter=delimiter, skipinitialspace=True, strict=True)
    next(reader, None)
    while True:
        line = first + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # the reader goes on with the next line
            last = first + reader.line_num
            until = "" if last == line else f", up to line {last}"
            yield _Record(
                line,
                {},
                f"its quotes do not match{until} ({error}): put quotes around the whole caption, "
                "and double those inside",
            )
            continue
        if any(field.strip() for field in fields):
            yield _record(line, header, fields, delimiter)


def _record(line: int, header: Sequence[str], fields: list[str], delimiter: str) -> _Record:
    """Gives the fields of a line their names."""
    named = dict(zip(header, fields, strict=False))
    counts = f"it has {len(fields)} fields, the header {len(header)}"
    if any(field.strip() for field in fields[len(header) :]):
        problem = f"{counts}: put quotes around captions and paths with {delimiter!r}"
        return _Record(line, named, problem)
    # Without a field that is read, the one before it may be cut, or another column's.
    if missing := [name for name in header[len(fields) :] if name in _NAMES]:
        return _Record(line, named, f"{counts}: add {missing[0]!r}, which may be empty")
    return _Record(line, named)


def _header(lines: Iterable[str], path: Path) -> tuple[list[str], str]:
    """Returns the names of the columns, and the delimiter that tells most of them apart."""
    found: list[tuple[list[str], str]] = []
    for delimiter in _DELIMITERS:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        names: list[str] = []
        with contextlib.suppress(csv.Error):  # another delimiter may fit its quotes
            names = next(reader, [])
        found.append(([name.strip().lower() for name in names], delimiter))
    header, delimiter = max(found, key=lambda one: len(_REQUIRED) - len(_missing(one[0])))
    _check_columns(header, path)
    return header, delimiter


def _check_columns(names: Sequence[str], path: Path) -> None:
    for wanted in _missing(names):
        there = ", ".join(filter(None, names))[:_QUOTED] or "(none)"
        raise UserError(
            f"{path} has the columns {there}; expected one of {', '.join(_ALIASES[wanted])}, on "
            "the first line"
        )
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(
            f"{path} names the column {twice[0][:_QUOTED]!r} twice: rename or remove one"
        )


def _missing(names: Iterable[str]) -> list[str]:
    """The required fields without a column."""
    return [wanted for wanted in _REQUIRED if not set(_ALIASES[wanted]) & set(names)]


def _json_records(text: str, path: Path) -> Iterator[_Record]:
    """The records of a list of objects, or of an object on each line."""
    if text.lstrip().startswith("["):
        values = parse_json(text, path, _EXPECTED_JSON)
        yield from (_json_record(number, value) for number, value in enumerate(values, start=1))
        return
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            yield _json_record(line, parse_json(row, "it", _EXPECTED_JSON))
        except UserError as error:
            yield _Record(line, {}, str(error))


def _json_record(line: int, value: Any) -> _Record:
    if not isinstance(value, dict):
        return _Record(line, {}, f"it is not an object; {_EXPECTED_JSON}")
    fields = {name.strip().lower(): "" if one is None else str(one) for name, one in value.items()}
    if missing := _missing(fields):
        return _Record(line, {}, f"it lacks one of {', '.join(_ALIASES[missing[0]])}")
    if len(fields) < len(value):
        return _Record(line, {}, "it has a name twice, in upper and lower case: remove one")
    return _Record(line, fields)


def _parse_row(number: int, record: _Record) -> Row | RowError:
    path, caption, count = (_field(record, name) for name in _ALIASES)
    quoted = path[:_QUOTED]
    if record.problem:
        return RowError(number, quoted, record.problem, record.line)
    # Only the last component is used, so no row can refer to a file outside the data root.
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    stem, dot, suffix = name.rpartition(".")
    # macOS decomposes accents in names of files, and other systems do not.
    id = unicodedata.normalize("NFC", stem if f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else name)
    if id in ("", ".", "..") or "\0" in id:
        reason = "the path does not end in the name of a video"
        return RowError(number, quoted, reason, record.line)
    if caption.lower() == "nan":
        caption = ""
    return Row(number, record.line, id, caption, _whole_number(count))


def _field(record: _Record, name: str) -> str:
    """The value of the first of a field's columns that is there; empty if none is."""
    values = (record.fields[alias] for alias in _ALIASES[name] if alias in record.fields)
    return next(values, "").strip()


def _whole_number(text: str) -> int | None:
    """Parses a number of frames; None if it is not one, as then the video itself decides."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if math.isfinite(value) else None
