"""MagicData: videos with mask and box maps for each frame, in the published layout.

    ROOT/MagicData.csv                              path, text, num_frames, other columns
    ROOT/videos/<id>.mp4                            or .mov, .mkv, ..., or a folder of frames
    ROOT/masks/<id>/annotated_frame_00000.png, ...  or any names that end in numbers from 0 or 1
    ROOT/boxs/<id>/annotated_frame_00000.png, ...   or boxes/

Maps may be JPEG images, too: their colors are restored from those of frame 0.

A row whose files are missing, damaged or too short is rejected and listed; the original code
replaces it with a black video.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np

from flashmotion_jax.config import Resize
from flashmotion_jax.media.frames import (
    VIDEO_SUFFIXES,
    find_path,
    find_video,
    image_files,
    iterate_frames,
)
from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.media.images import read_image
from flashmotion_jax.media.labels import is_lossy
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.hashing import file_sha256
from flashmotion_jax.trajectory.formats.magicdata_csv import Row, RowError, find_csv, read_rows
from flashmotion_jax.trajectory.formats.magicmotion import trajectory_of_maps
from flashmotion_jax.trajectory.quantize import exact_maps
from flashmotion_jax.trajectory.render import render

#: Rows that are looked up in parallel: network storage has high latency but answers many requests.
_LOOKUPS = 16
#: Relative difference in aspect ratio between maps and video that rounding of sizes explains.
_ASPECT_TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A video with its maps.

    Attributes:
      id: Id of the video.
      caption: Caption of the video.
      video: Frames, uint8 [F, H, W, 3].
      masks: Maps of the objects' masks in their colors on black, uint8 [F, H, W, 3].
      boxes: Maps of the objects' boxes, uint8 [F, H, W, 3]; frame 0 is that of `masks`.
      points: Maps of the centers of the boxes, likewise; None where they were not asked for.
    """

    id: str
    caption: str
    video: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    points: np.ndarray | None = None


class MagicData:
    """The usable rows of a MagicData folder, as a random-access source of `Example`s.

    The constructor checks that all files exist. Problems that only decoding can reveal raise
    `RowError` in `__getitem__`.

    Args:
      data_root: The MagicData folder. The CSV contains paths on its author's machine; only the last
        component, the id, is used, and looked up in this folder.
      csv: File name in `data_root`, or a path; see `formats.magicdata_csv`.
      num_frames: Number of frames to read from the start of each video; shorter videos are
        rejected.
      height: Height to resize to, in pixels.
      width: Width to resize to, in pixels.
      resize: "stretch" as in the original loader, or "crop" to fill the size and crop the center.
        Videos are resampled with a Lanczos filter, maps with nearest neighbor.
      point_sigma: Draws maps of points, with this standard deviation as a fraction of the shorter
        side; None for none.

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
        point_sigma: float | None = None,
    ):
        if resize not in get_args(Resize):
            raise UserError(f"resize={resize!r}; expected {' or '.join(get_args(Resize))}")
        self._root = Path(data_root)
        self._boxes = self._root / ("boxs" if (self._root / "boxs").is_dir() else "boxes")
        self._num_frames, self._height, self._width = num_frames, height, width
        self._resize, self._point_sigma = resize, point_sigma
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
        try:
            mask_files, box_files = self._map_files(row.id)
            # Decode only the frames that are needed: the rest of a file may be damaged.
            frames = islice(
                iterate_frames(find_video(self._root / "videos", row.id)), self._num_frames
            )
            video, size = self._stack(frames)
            masks, mask_size = self._stack(_read_maps(mask_files), nearest=True)
            boxes, _ = self._stack(_read_maps(box_files), nearest=True)
            _check_aspect(size, mask_size)
            points = None if self._point_sigma is None else self._draw_points(boxes)
        except UserError as error:
            raise row.error(str(error)) from error
        return Example(row.id, row.caption, video, masks, boxes, points)

    def _draw_points(self, boxes: np.ndarray) -> np.ndarray:
        """Draws the centers of the boxes of maps; frame 0 stays as it is."""
        trajectory = trajectory_of_maps(boxes)
        points = render(
            trajectory, self._height, self._width, "points", point_sigma=self._point_sigma or 0.0
        )
        points[0] = boxes[0]
        return points

    def _look_up(self, row: Row | RowError) -> Row | RowError:
        """Returns the row if its files exist, else the error."""
        if isinstance(row, RowError) or (problem := self._problem(row)) is None:
            return row
        return row.error(problem)

    def _problem(self, row: Row) -> str | None:
        """Returns what is missing for a row, judged by file names; None if nothing is."""
        wanted = self._num_frames
        if row.num_frames is not None and row.num_frames < wanted:
            return f"{row.num_frames} frames according to the CSV, {wanted} are needed"
        video = find_video(self._root / "videos", row.id)
        if not video.exists():
            return f"no videos/{row.id}.mp4 (or {', '.join(VIDEO_SUFFIXES[1:])}, or a folder)"
        if video.is_dir() and (count := len(image_files(video))) < wanted:
            return f"{count} images in videos/{row.id}, {wanted} are needed"
        try:
            self._map_files(row.id)
        except UserError as error:
            return str(error)
        return None

    def _map_files(self, id: str) -> tuple[list[Path], list[Path]]:
        """The files of a video's mask and box maps, frame by frame.

        Raises:
          UserError: A map is missing, or two images are of the same frame.
        """
        masks = _numbered_images(self._root / "masks", id)
        boxes = _numbered_images(self._boxes, id)
        numbers = [number + (0 not in masks) for number in range(self._num_frames)]
        for folder, there, wanted in ((self._root / "masks", masks, 0), (self._boxes, boxes, 1)):
            if missing := [number for number in numbers[wanted:] if number not in there]:
                raise UserError(
                    f"{folder.name}/{id} lacks {len(missing)} of {self._num_frames} maps (first: "
                    f"annotated_frame_{missing[0]:05d}.png)"
                )
        # Frame 0 shows masks in box maps, too: the model is given masks for the first frame.
        first = masks[numbers[0]]
        return [masks[number] for number in numbers], [
            first,
            *(boxes[number] for number in numbers[1:]),
        ]

    def _stack(
        self, frames: Iterable[np.ndarray], nearest: bool = False
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """Resizes one frame at a time, so that only one is in memory at its original size.

        Returns:
          Resized frames, uint8 [F, H, W, 3], and the original height and width.
        """
        stacked = np.empty((self._num_frames, self._height, self._width, 3), np.uint8)
        sizes = []
        for target, frame in zip(stacked, frames, strict=False):
            target[:] = fit_frames(frame, self._height, self._width, self._resize, nearest)
            sizes.append(frame.shape[:2])
        if len(sizes) < self._num_frames:
            raise UserError(f"{len(sizes)} frames in the file, {self._num_frames} are needed")
        _check_sizes(set(sizes))
        return stacked, sizes[0]


def _numbered_images(folder: Path, id: str) -> dict[int, Path]:
    """The images of a folder by the number at the end of their names.

    Raises:
      UserError: Two images have the same number.
    """
    found: dict[int, Path] = {}
    for file in image_files(find_path(folder, id)):
        digits = re.search(r"\d+$", file.stem)
        if digits is None or file.name.startswith("."):
            continue
        if (other := found.setdefault(int(digits[0]), file)) is not file:
            raise UserError(
                f"{folder.name}/{id} has two images of a frame, {other.name} and {file.name}: "
                "remove one"
            )
    return found


def _read_maps(files: Sequence[Path]) -> Iterable[np.ndarray]:
    """Reads maps one at a time; all together if compression has changed their colors.

    Raises:
      UserError: An image cannot be read, or the colors of frame 0 cannot be found.
    """
    frames = map(read_image, files)
    if not any(is_lossy(file) for file in files[:2]):
        return frames
    whole = list(frames)
    _check_sizes({frame.shape[:2] for frame in whole})
    return exact_maps(np.stack(whole))


def _check_sizes(sizes: Collection[tuple[int, ...]]) -> None:
    if len(sizes) > 1:
        raise UserError(f"frames of different sizes (height, width): {sorted(sizes)[:5]}")


def _check_aspect(video: tuple[int, int], maps: tuple[int, int]) -> None:
    ratio = maps[1] * video[0] / (maps[0] * video[1])
    if abs(ratio - 1) > _ASPECT_TOLERANCE:
        raise UserError(
            f"maps of {maps[0]} x {maps[1]} pixels for a video of {video[0]} x {video[1]}: the "
            "aspect ratios differ, so they were made for another crop of the video"
        )
