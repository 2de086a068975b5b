"""The mask of an object on frame 0, as run lengths, which compare and hash by value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flashmotion_jax.media.labels import read_mask
from flashmotion_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Mask:
    """A binary mask as uncompressed COCO run lengths.

    Attributes:
      size: (height, width) in pixels.
      counts: Lengths of alternating runs of pixels outside and inside the mask, starting outside,
        in column-major order.

    Source: COCO's `segmentation` of crowd objects (pycocotools `mask.py`).
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    @classmethod
    def from_array(cls, mask_HW: np.ndarray) -> Mask:
        """Encodes an array [H, W] of any dtype; nonzero values are inside."""
        pixels = np.asarray(mask_HW, bool).ravel(order="F")
        changes = np.flatnonzero(np.diff(pixels, prepend=False))
        counts = np.diff(changes, prepend=0, append=pixels.size)
        height, width = mask_HW.shape
        return cls((height, width), tuple(counts.tolist()))

    def to_array(self) -> np.ndarray:
        """Decodes to bool [H, W]."""
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(self.size, order="F")

    def box(self) -> tuple[float, float, float, float]:
        """The bounding box (x0, y0, x1, y1) as fractions of the size.

        Raises:
          UserError: The mask is empty.
        """
        extent = bounding_box(self.to_array())
        if extent is None:
            raise UserError("the mask is empty: expected at least one pixel inside")
        x0, y0, x1, y1 = extent
        height, width = self.size
        return x0 / width, y0 / height, x1 / width, y1 / height


def bounding_box(mask_HW: np.ndarray) -> tuple[int, int, int, int] | None:
    """The bounding box (x0, y0, x1, y1) in pixels of a bool [H, W], ends exclusive, or None."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def read_mask_png(folder: Path, name: str) -> Mask:
    """Reads a mask from an image, see `media.labels.read_mask`.

    Args:
      folder: Folder of the trajectory file, which must contain the image.
      name: Path relative to `folder`.

    Raises:
      UserError: The path leaves the folder, or is not a readable image.
    """
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise UserError(f"{name!r} leaves the trajectory's folder; put the PNG beside the JSON")
    return Mask.from_array(read_mask(path))
