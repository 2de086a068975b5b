"""MagicData: videos with mask and box maps for each frame, in the published layout.

    ROOT/MagicData.csv                              path, text, num_frames, other columns
    ROOT/videos/<id>.mp4                            or .mkv, or a folder of frames
    ROOT/masks/<id>/annotated_frame_00000.png, ...
    ROOT/boxs/<id>/annotated_frame_00000.png, ...   or boxes/

A row whose files are missing, damaged or too short is rejected and listed; the original code
replaces it with a black video.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from flashmotion_jax.media.frames import VIDEO_SUFFIXES, find_video, image_files, iterate_frames
from flashmotion_jax.media.images import cover_crop, read_image
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.hashing import file_sha256

Resize = Literal["stretch", "crop"]

#: Field -> accepted names of its CSV column.
_ALIASES = {
    "path": ("path", "video", "video_path"),
    "text": ("text", "caption", "prompt"),
    "num_frames": ("num_frames",),
}
#: Rows that are looked up in parallel: network storage has high latency but answers many requests.
_LOOKUPS = 16
#: Relative difference in aspect ratio between maps and video that rounding of sizes explains.
_ASPECT_TOLERANCE = 0.02


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


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A video with its maps.

    Attributes:
      id: Id of the video.
      caption: Caption of the video.
      video: Frames, uint8 [F, H, W, 3].
      masks: Maps of the objects' masks in their colors on black, uint8 [F, H, W, 3].
      boxes: Maps of the objects' boxes, uint8 [F, H, W, 3]; frame 0 is that of `masks`.
    """

    id: str
    caption: str
    video: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray


class MagicData:
    """The usable rows of a MagicData folder, as a random-access source of `Example`s.

    The constructor checks that all files exist. Problems that only decoding can reveal raise
    `RowError` in `__getitem__`.

    Args:
      data_root: The MagicData folder. The CSV contains paths on its author's machine; only the last
        component, the id, is used, and looked up in this folder.
      csv: File name in `data_root`, or a path.
      num_frames: Number of frames to read from the start of each video; shorter videos are
        rejected.
      height: Height to resize to, in pixels.
      width: Width to resize to, in pixels.
      resize: "stretch" as in the original loader, or "crop" to fill the size and crop the center.
        Videos are resampled with a Lanczos filter, maps with nearest neighbor.

    Attributes:
      rows: The usable rows.
      rejected: The other rows, in the order of the CSV.
      csv: The CSV file.

    Raises:
      UserError: There is no CSV, a column is missing, or no row can be used.

    Source: the model card of FlashMotion for the folders; `ODERegressionCSVDataset` in
      Wan2.2-TI2V-5B-Turbo, `utils/dataset.py`, for columns and frames.
    """

    def __init__(
        self,
        data_root: str | Path,
        csv: str | Path = "MagicData.csv",
        *,
        num_frames: int = 121,
        height: int = 704,
        width: int = 1280,
        resize: Resize = "stretch",
    ):
        if resize not in ("stretch", "crop"):
            raise UserError(f"resize={resize!r}; expected 'stretch' or 'crop'")
        self._root = Path(data_root)
        self._boxes = self._root / ("boxs" if (self._root / "boxs").is_dir() else "boxes")
        self._num_frames, self._height, self._width = num_frames, height, width
        self._resize = resize
        self.csv = find_csv(self._root, Path(csv))
        found = read_rows(self.csv)
        with ThreadPoolExecutor(_LOOKUPS) as pool:
            checked = list(pool.map(self._look_up, found))
        self.rows = tuple(row for row in checked if isinstance(row, Row))
        self.rejected = tuple(row for row in checked if isinstance(row, RowError))
        if not self.rows:
            first = f" (first: {self.rejected[0]})" if self.rejected else ""
            raise UserError(
                f"{self.csv}: none of the {len(found)} rows can be used{first}; expected the "
                "folder that contains videos/, masks/ and boxs/"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_numbers(self) -> tuple[int, ...]:
        """Row number of each example."""
        return tuple(row.number for row in self.rows)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the CSV."""
        return file_sha256(self.csv)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        mask_files = self._map_files(self._root / "masks", row.id)
        # Frame 0 shows masks in box maps, too: the model is given masks for the first frame.
        box_files = [mask_files[0], *self._map_files(self._boxes, row.id)[1:]]
        try:
            # Decode only the frames that are needed: the rest of a file may be damaged.
            frames = islice(
                iterate_frames(find_video(self._root / "videos", row.id)), self._num_frames
            )
            video, size = self._stack(frames, Image.Resampling.LANCZOS)
            masks, mask_size = self._stack(map(read_image, mask_files), Image.Resampling.NEAREST)
            boxes, _ = self._stack(map(read_image, box_files), Image.Resampling.NEAREST)
            _check_aspect(size, mask_size)
        except (OSError, ValueError, IndexError, av.FFmpegError) as error:
            raise RowError(row.number, row.id, str(error)) from error
        return Example(row.id, row.caption, video, masks, boxes)

    def _look_up(self, row: Row | RowError) -> Row | RowError:
        """Returns the row if its files exist, else the error."""
        if isinstance(row, RowError) or (problem := self._problem(row)) is None:
            return row
        return RowError(row.number, row.id, problem)

    def _problem(self, row: Row) -> str | None:
        """Returns what is missing for a row, judged by file names; None if nothing is."""
        wanted = self._num_frames
        if row.num_frames is not None and row.num_frames < wanted:
            return f"{row.num_frames} frames according to the CSV, {wanted} are needed"
        video = find_video(self._root / "videos", row.id)
        if not video.exists():
            return f"no videos/{row.id}.mp4"
        if video.is_dir() and (count := len(image_files(video))) < wanted:
            return f"{count} images in videos/{row.id}, {wanted} are needed"
        for folder, first in ((self._root / "masks", 0), (self._boxes, 1)):
            there = {file.name for file in _files(folder / row.id)}
            files = self._map_files(folder, row.id)[first:]
            if missing := [file.name for file in files if file.name not in there]:
                return (
                    f"{folder.name}/{row.id} lacks {len(missing)} of {wanted} maps (first: "
                    f"{missing[0]})"
                )
        return None

    def _map_files(self, folder: Path, id: str) -> list[Path]:
        return [folder / id / f"annotated_frame_{i:05d}.png" for i in range(self._num_frames)]

    def _stack(
        self, frames: Iterable[np.ndarray], kernel: Image.Resampling
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """Resizes one frame at a time, so that only one is in memory at its original size.

        Returns:
          Resized frames, uint8 [F, H, W, 3], and the original height and width.
        """
        stacked = np.empty((self._num_frames, self._height, self._width, 3), np.uint8)
        sizes = []
        for target, frame in zip(stacked, frames, strict=False):
            target[:] = self._fit(frame, kernel)
            sizes.append(frame.shape[:2])
        if len(sizes) < self._num_frames:
            raise UserError(f"{len(sizes)} frames in the file, {self._num_frames} are needed")
        if len(set(sizes)) > 1:
            raise UserError(f"frames of different sizes (height, width): {sorted(set(sizes))}")
        return stacked, sizes[0]

    def _fit(self, frame: np.ndarray, kernel: Image.Resampling) -> np.ndarray:
        if self._resize == "crop":
            nearest = kernel is Image.Resampling.NEAREST
            return cover_crop(frame, self._height, self._width, nearest)
        return np.asarray(Image.fromarray(frame).resize((self._width, self._height), kernel))


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


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _check_aspect(video: tuple[int, int], maps: tuple[int, int]) -> None:
    ratio = maps[1] * video[0] / (maps[0] * video[1])
    if abs(ratio - 1) > _ASPECT_TOLERANCE:
        raise UserError(
            f"maps of {maps[0]} x {maps[1]} pixels for a video of {video[0]} x {video[1]}: the "
            "aspect ratios differ, so they were made for another crop of the video"
        )
