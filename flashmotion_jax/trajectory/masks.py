"""An object's mask on frame 0: run lengths in memory and in JSON, PNG as input.

Run lengths compare and hash like any other value, so a trajectory that holds them does too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flashmotion_jax.media.images import read_image
from flashmotion_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Mask:
    """A binary mask as uncompressed COCO run lengths.

    Attributes:
      size: (height, width) in pixels.
      counts: Lengths of the alternating runs of pixels outside and inside, outside first,
        counted down the columns from the left.

    Source: COCO's `segmentation` of crowd objects (pycocotools `mask.py`).
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    @classmethod
    def from_array(cls, mask_HW: np.ndarray) -> Mask:
        """Encodes a [H, W] array of any dtype; what is not zero is inside."""
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
        """The bounding box (x0, y0, x1, y1) in 0..1 of the mask's size.

        Raises:
          UserError: No pixel is inside.
        """
        extent = bounding_box(self.to_array())
        if extent is None:
            raise UserError("the mask is empty: expected at least one pixel inside")
        x0, y0, x1, y1 = extent
        height, width = self.size
        return x0 / width, y0 / height, x1 / width, y1 / height


def bounding_box(mask_HW: np.ndarray) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) in pixels around the inside of a bool [H, W], x1 and y1 exclusive."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def read_mask_png(folder: Path, name: str) -> Mask:
    """Reads a mask from a PNG: inside is what is neither black nor transparent.

    Args:
      folder: Where the trajectory file lies; the PNG must lie in it or below it.
      name: Path relative to `folder`.

    Raises:
      UserError: The path leaves the folder, or is no readable image.
    """
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise UserError(f"{name!r} leaves the trajectory's folder; put the PNG beside the JSON")
    return Mask.from_array(np.any(read_image(path), axis=-1))
