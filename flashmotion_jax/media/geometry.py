"""How pictures reach the size of a video, and the way back.

Image, trajectory, masks, cached clips and the frames that an evaluation compares all go through a
`Fit`, so that they stay on top of each other. This module imports no jax.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from flashmotion_jax.config import Grid, Resize, SamplingConfig
from flashmotion_jax.media.images import check_frames
from flashmotion_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Fit:
    """A picture that is resized, and cropped, to the size of a video.

    All sizes are (height, width) in pixels.

    Attributes:
      source: Size of the picture.
      target: Size of the video.
      resized: Size that the picture is resized to.
      offset: (top, left) of the video in the resized picture.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]

    @classmethod
    def of(cls, source: tuple[int, int], target: tuple[int, int], resize: Resize = "crop") -> Fit:
        """Computes how a picture reaches a size.

        Args:
          source: Size of the picture.
          target: Size of the video.
          resize: "crop" resizes the picture to cover the video and takes its center, as `i2v` in
            upstream Wan2.2, `wan/textimage2video.py`; "stretch" does not keep its aspect ratio, as
            `wan2.2_fewstep.py` of Wan2.2-TI2V-5B-Turbo.

        Raises:
          UserError: A side is below one pixel.
        """
        if min(*source, *target) < 1:
            raise UserError(
                f"cannot resize {source} to {target}: expected heights and widths of at least 1"
            )
        if resize == "stretch":
            return cls(source, target, target, (0, 0))
        (height, width), (target_height, target_width) = source, target
        scale = max(target_width / width, target_height / height)
        resized = round(height * scale), round(width * scale)
        offset = (resized[0] - target_height) // 2, (resized[1] - target_width) // 2
        return cls(source, target, resized, offset)

    def apply(self, frames: np.ndarray, nearest: bool = False) -> np.ndarray:
        """Brings an image or a video of the source's size to the target's.

        Args:
          frames: uint8 [H, W, 3] or [F, H, W, 3].
          nearest: Use nearest-neighbor resampling, for maps, whose colors must not mix; otherwise
            Lanczos.

        Returns:
          uint8 [height, width, 3] or [F, height, width, 3].

        Raises:
          UserError: The frames are something else.
        """
        if frames.ndim == 3:
            return self.apply(frames[None], nearest)[0]
        check_frames(frames, "frames")
        if nearest:
            sizes = zip(self._centers(), frames.shape[1:3], strict=True)
            rows, columns = (pick_pixels(centers, length) for centers, length in sizes)
            return frames[:, rows[:, None], columns]
        (height, width), (top, left) = self.target, self.offset
        fitted = np.empty((len(frames), height, width, 3), np.uint8)
        for source, target in zip(frames, fitted, strict=True):
            resized = Image.fromarray(source).resize(self.resized[::-1], Image.Resampling.LANCZOS)
            target[:] = np.asarray(resized.crop((left, top, left + width, top + height)))
        return fitted

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Converts boxes [..., 4] from fractions of the source to pixels of the target."""
        (height, width), (top, left) = self.resized, self.offset
        return boxes * np.array([width, height] * 2) - np.array([left, top] * 2)

    @property
    def visible(self) -> np.ndarray:
        """The part of the source in the target, (x0, y0, x1, y1) as fractions, float64 [4]."""
        (height, width), (top, left) = self.resized, self.offset
        edges = np.array([left, top, left + self.target[1], top + self.target[0]], np.float64)
        return edges / np.array([width, height] * 2)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Brings masks to the target by nearest neighbor.

        Args:
          masks: bool [..., h, w], which show all of the source; h and w may differ from its size.

        Returns:
          bool [..., height, width].
        """
        return _pick(masks, *self._centers())

    def compared(
        self, masks: np.ndarray, found: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The part of masks that the target shows, as they are compared with those found in it.

        Along each axis, masks are compared on the pixels of the source or the target, whichever
        has fewer there. On more, the same picture would have other edges.

        Args:
          masks: bool [..., h, w], which show all of the source.
          found: bool [..., h, w], which show all of the target; h and w may differ from its size.

        Returns:
          Both, bool [..., rows, columns], by nearest neighbor. Without found masks, the pixels are
          those of the masks.
        """
        of_masks, of_found = [], []
        most = (2**30, 2**30) if found is None else found.shape[-2:]
        for axis in range(2):
            count, resized, offset = masks.shape[-2:][axis], self.resized[axis], self.offset[axis]
            target = self.target[axis]
            if most[axis] * resized < count * target:
                in_target = (np.arange(most[axis]) + 0.5) / most[axis]
                in_source = (in_target * target + offset) / resized
            else:
                in_source = (np.arange(count) + 0.5) / count
                in_target = (in_source * resized - offset) / target
                is_shown = (in_target >= 0) & (in_target < 1)
                in_source, in_target = in_source[is_shown], in_target[is_shown]
            of_masks.append(in_source)
            of_found.append(in_target)
        return _pick(masks, *of_masks), None if found is None else _pick(found, *of_found)

    def _centers(self) -> tuple[np.ndarray, np.ndarray]:
        """The centers of the target's rows and columns, as fractions of the source."""
        sides = zip(self.target, self.resized, self.offset, strict=True)
        rows, columns = (
            (np.arange(target) + 0.5 + offset) / resized for target, resized, offset in sides
        )
        return rows, columns

    def points_back(self, points: np.ndarray) -> np.ndarray:
        """Converts points [..., 2], (x, y) in pixels, from the target to the source."""
        (height, width), (top, left) = self.resized, self.offset
        scale = np.array([self.source[1] / width, self.source[0] / height])
        return (points + np.array([left, top])) * scale


def fit_frames(
    frames: np.ndarray, height: int, width: int, resize: Resize = "crop", nearest: bool = False
) -> np.ndarray:
    """Brings an image or a video to a size; see `Fit.of` and `Fit.apply`.

    Raises:
      UserError: The frames are not uint8 [H, W, 3] or [F, H, W, 3], or the size is below one pixel.
    """
    if frames.ndim not in (3, 4):
        check_frames(frames, "frames")
    source = frames.shape[-3], frames.shape[-2]
    return Fit.of(source, (height, width), resize).apply(frames, nearest)


def pick_pixels(positions: np.ndarray, length: int) -> np.ndarray:
    """Converts positions in 0..1 to indices of `length` pixels; outside, the index is `length`.

    A position between two pixels belongs to the second, also if it was rounded down.
    """
    index = np.floor(positions * length + 1e-6)
    return np.where((index >= 0) & (index < length), index, length).astype(int)


def _pick(masks: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels of masks [..., h, w] at positions in 0..1; False outside."""
    height, width = masks.shape[-2:]
    picked = pick_pixels(rows, height), pick_pixels(columns, width)
    if all(map(np.array_equal, picked, (np.arange(height), np.arange(width)))):
        return masks  # of the same size and part
    # A row and a column of background, which indices outside the masks refer to.
    padded = np.pad(masks, [(0, 0)] * (masks.ndim - 2) + [(0, 1), (0, 1)])
    return padded.take(picked[0], axis=-2).take(picked[1], axis=-1)


def video_size(
    image: tuple[int, int] | None, sampling: SamplingConfig, grid: Grid
) -> tuple[int, int]:
    """Returns the size of the video for an image: see `SamplingConfig.size_from`.

    Args:
      image: Height and width of the image; None for text-to-video.
      sampling: Height, width, and which of them to keep.
      grid: Grid of the model.

    Returns:
      (height, width) in pixels.

    Raises:
      UserError: No size with a similar aspect ratio fits.
    """
    if image is None or sampling.size_from == "model":
        return sampling.height, sampling.width
    area = sampling.height * sampling.width
    return best_size(*image, area, (grid.height, grid.width))


def best_size(
    height: int, width: int, max_area: int, multiples: tuple[int, int]
) -> tuple[int, int]:
    """Returns the size of the video for an image, as in Wan2.2.

    The video keeps the aspect ratio and has up to `max_area` pixels. Of two candidates, one rounds
    the ideal width down to a multiple, the other the ideal height, and the remaining side fills
    `max_area`; the one with the closer aspect ratio is chosen.

    Source: `best_output_size` in upstream Wan2.2, `wan/utils/utils.py`.

    Args:
      height: Of the image, in pixels.
      width: Of the image, in pixels.
      max_area: Maximum number of pixels per frame.
      multiples: Height and width of a token in pixels, which the size is a multiple of.

    Returns:
      (height, width) in pixels.

    Raises:
      UserError: No size with a similar aspect ratio fits.
    """
    if min(height, width, max_area, *multiples) < 1:
        raise UserError(
            f"height {height}, width {width}, max_area {max_area}, multiples {multiples}: "
            "expected whole numbers of at least 1"
        )
    aspect = width / height
    ideal_width = (max_area * aspect) ** 0.5

    def pair(ideal_side: float, multiple: int, other_multiple: int) -> tuple[int, int]:
        side = int(ideal_side // multiple * multiple)
        return side, int(max_area / max(side, 1) // other_multiple * other_multiple)

    from_height = pair(max_area / ideal_width, *multiples)
    from_width = pair(ideal_width, *multiples[::-1])[::-1]
    if not min(*from_height, *from_width):
        raise UserError(
            f"an image of {height} x {width} has no size of at most {max_area} pixels in "
            f"multiples of {multiples[0]} x {multiples[1]}: crop it, or allow a larger area"
        )

    def misfit(size: tuple[int, int]) -> float:
        candidate = size[1] / size[0]
        return max(aspect / candidate, candidate / aspect)

    return min(from_height, from_width, key=misfit)
