"""MagicData: videos with a map of masks and a map of boxes for each frame, in the published layout.

    ROOT/MagicData.csv                              path, text, num_frames, whatever else
    ROOT/videos/<id>.mp4                            or .mkv, or a folder of image frames
    ROOT/masks/<id>/annotated_frame_00000.png, ...
    ROOT/boxs/<id>/annotated_frame_00000.png, ...   or boxes/

A row that cannot be trained on, because something of it is short, missing or damaged, is left out
and listed; upstream replaces it by a black video. Numpy only, no jax.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from PIL import Image

from flashmotion_jax.media.frames import VIDEO_SUFFIXES, find_video, image_files, iterate_frames
from flashmotion_jax.media.images import cover_crop, read_image
from flashmotion_jax.runtime.errors import UserError

Resize = Literal["stretch", "crop"]

#: What is read of the CSV, and the names its column may have.
_ALIASES = {
    "path": ("path", "video", "video_path"),
    "text": ("text", "caption", "prompt"),
    "num_frames": ("num_frames",),
}
#: Rows whose files are looked up at once: network storage takes long to answer, but many at a time.
_LOOKUPS = 16
#: Maps and video may differ so much in aspect ratio, for sizes that were rounded.
_ASPECT_TOLERANCE = 0.02


class RowError(UserError):
    """A row of the CSV that cannot be trained on.

    Attributes:
      row: its number, counted from 0 below the header.
      id: of its video; what the CSV says where that is no id.
      reason: what is wrong.
    """

    def __init__(self, row: int, id: str, reason: str):
        super().__init__(f"row {row} ({id}): {reason}")
        self.row = row
        self.id = id
        self.reason = reason


class Row(NamedTuple):
    """A row of the CSV: its number below the header, the video, and what the CSV says of it."""

    number: int
    id: str
    caption: str
    num_frames: int | None


class Example(NamedTuple):
    """A video with its maps.

    Attributes:
      id: of the video.
      caption: what happens in it.
      video: uint8 [F, H, W, 3].
      masks: likewise, the objects' masks in their colors on black.
      boxes: likewise, their boxes; frame 0 is that of `masks`.
    """

    id: str
    caption: str
    video: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray


class MagicData:
    """The rows of a MagicData folder that can be trained on, read when they are asked for.

    Files are looked up at once; what only decoding shows is a `RowError` of `__getitem__`.

    Args:
      data_root: the folder. The paths of the CSV are those of its author's machine; only the name
        at their end, the id, is used, and looked up here.
      csv: in `data_root`, or a path of its own.
      num_frames: the first frames of each video; shorter ones are left out.
      height: wanted, in pixels.
      width: wanted, in pixels.
      resize: "stretch" as upstream's loader does, or "crop" to cover the size and crop the centre;
        videos with Lanczos, maps by nearest.

    Attributes:
      rows: what is left.
      rejected: what is not, in the order of the CSV.
      csv: the file that was read.

    Raises:
      UserError: there is no CSV, a column is missing, or no row is left.

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
            first = f", the first is {self.rejected[0]}" if self.rejected else ""
            raise UserError(
                f"{self.csv}: none of its {len(found)} rows can be trained on{first}; give the "
                "folder that holds videos/, masks/ and boxs/"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        mask_files = self._map_files(self._root / "masks", row.id)
        # Latent frame 0 holds the masks alone, with box maps too.
        box_files = [mask_files[0], *self._map_files(self._boxes, row.id)[1:]]
        try:
            # No more is decoded than is wanted: what is behind may be damaged.
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
        """The row if its files are there."""
        if isinstance(row, RowError) or (fault := self._fault(row)) is None:
            return row
        return RowError(row.number, row.id, fault)

    def _fault(self, row: Row) -> str | None:
        wanted = self._num_frames
        if row.num_frames is not None and row.num_frames < wanted:
            return f"{row.num_frames} frames by the CSV, {wanted} are needed"
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
                    f"{folder.name}/{row.id} lacks {len(missing)} of {wanted} maps, the first is "
                    f"{missing[0]}"
                )
        return None

    def _map_files(self, folder: Path, id: str) -> list[Path]:
        return [folder / id / f"annotated_frame_{i:05d}.png" for i in range(self._num_frames)]

    def _stack(
        self, frames: Iterable[np.ndarray], kernel: Image.Resampling
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """Resizes frame by frame, so that a long or large video is never held at its own size.

        Returns:
          uint8 [F, H, W, 3], and height and width of the frames before.
        """
        stacked = np.empty((self._num_frames, self._height, self._width, 3), np.uint8)
        sizes = []
        for target, frame in zip(stacked, frames, strict=False):
            target[:] = self._fit(frame, kernel)
            sizes.append(frame.shape[:2])
        if len(sizes) < self._num_frames:
            raise UserError(f"{len(sizes)} frames in the file, {self._num_frames} are needed")
        if len(set(sizes)) > 1:
            raise UserError(f"frames of the sizes (height, width) {sorted(set(sizes))}")
        return stacked, sizes[0]

    def _fit(self, frame: np.ndarray, kernel: Image.Resampling) -> np.ndarray:
        if self._resize == "crop":
            nearest = kernel is Image.Resampling.NEAREST
            return cover_crop(frame, self._height, self._width, nearest)
        return np.asarray(Image.fromarray(frame).resize((self._width, self._height), kernel))


def find_csv(root: Path, name: Path) -> Path:
    """The CSV of a MagicData folder.

    Args:
      root: the folder.
      name: in it, or a path of its own.

    Raises:
      UserError: there is none.
    """
    for path in (root / name, name):
        if path.is_file():
            return path
    raise UserError(
        f"no {root / name}: expected the MagicData folder, with {name} beside videos/, masks/ and "
        "boxs/; give its path, or that of the CSV"
    )


def read_rows(path: Path) -> list[Row | RowError]:
    """The rows of a MagicData CSV, whatever their files.

    Returns:
      In the file's order; a row without an id, or with that of an earlier one, as `RowError`.

    Raises:
      UserError: the file is no CSV in UTF-8, or lacks a column.
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
    """What is read of the CSV -> the column that has it."""
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
                f"{path} has the columns {', '.join(there) or 'of an empty file'}; expected one of "
                f"{', '.join(_ALIASES[wanted])}"
            )
    return columns


def _parse_row(
    number: int, values: Mapping[str, str | None], columns: Mapping[str, str]
) -> Row | RowError:
    path, caption, count = (
        (values.get(columns.get(name, "")) or "").strip() for name in ("path", "text", "num_frames")
    )
    # Only the last name of the path is taken, so no row can leave the data root.
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    id = name[:-4] if name.lower().endswith(VIDEO_SUFFIXES) else name
    if id in ("", ".", "..") or "\0" in id:
        return RowError(number, path, "the path ends in no name of a video")
    if caption.lower() == "nan":
        caption = ""
    return Row(number, id, caption, _whole_number(count))


def _whole_number(text: str) -> int | None:
    """The number, or None for what is none: the file itself decides then."""
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
            f"maps of {maps[0]} x {maps[1]} for a video of {video[0]} x {video[1]} pixels: another "
            "aspect ratio, so they belong to another cut of it"
        )
