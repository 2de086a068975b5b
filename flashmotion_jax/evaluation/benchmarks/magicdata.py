"""The folder layout of MagicData, which FlashBench, MagicBench, Sprites and plain folders share.

    ROOT/MagicData.csv            a row for each video: path and caption
    ROOT/videos/<id>.mp4          ground truth
    ROOT/masks/<id>/              a label image for each frame
    ROOT/first_frames/<id>.png
    ROOT/trajectories/<id>.json

First frames and trajectories are optional.
"""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.evaluation.benchmarks.base import Item, Layout, Problem
from flashmotion_jax.media.frames import find_path, find_video, image_files
from flashmotion_jax.trajectory.formats.magicdata_csv import Row, find_csv, read_rows


class MagicDataLayout(Layout):
    """A folder in the layout of MagicData."""

    def rows(self, root: Path) -> list[tuple[str, str] | Problem]:
        """Ids with captions, and rows of the CSV that cannot be used."""
        return [
            (row.id, row.caption)
            if isinstance(row, Row)
            else Problem(row.id, f"line {row.line}: {row.reason}")
            for row in read_rows(find_csv(root, Path("MagicData.csv")))
        ]

    def read(self, root: Path) -> list[Item | Problem]:
        """Lists the videos; see `Layout.read`."""
        found: list[Item | Problem] = []
        for row in self.rows(root):
            if isinstance(row, Problem):
                found.append(row)
                continue
            id, caption = row
            masks = image_files(find_path(root / "masks", id))
            found.append(self.item(root, id, caption, masks, find_video(root / "videos", id)))
        return found
