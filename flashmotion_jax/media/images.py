"""Images: reading, resizing, and conversion between pixels and the range of the models.

This module imports no jax.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from flashmotion_jax.runtime.errors import UserError

Frames = TypeVar("Frames", bound=Any)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

#: What Pillow raises for a file that it cannot read.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image as an image viewer would show it.

    Args:
      path: Any format Pillow knows. The EXIF orientation is applied, transparency is composited
        over black, grayscale becomes RGB, and 16-bit grayscale keeps its upper 8 bits.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: The file is missing or is not an image Pillow can read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no image at {path}: give the path of a PNG, JPEG or WebP file")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            rgba = upright.convert("RGBA")
    except UNREADABLE as error:
        raise UserError(
            f"{path} is not a readable image ({error}): give a whole PNG, JPEG or WebP file"
        ) from error
    black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, rgba).convert("RGB"))


def check_frames(frames: np.ndarray, name: str) -> None:
    """Checks that an array holds frames.

    Args:
      frames: Expected to be uint8 `[F, H, W, 3]` with at least one pixel.
      name: Name of the array in the message.

    Raises:
      UserError: The array has another dtype or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise UserError(f"{name}: {frames.dtype} {list(frames.shape)}, expected uint8 [F, H, W, 3]")


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


def cover_geometry(
    source_hw: tuple[int, int], target_hw: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Computes the resizing and cropping that fill the target with the center of the source.

    Source: `i2v` in upstream Wan2.2, `wan/textimage2video.py`.

    Args:
      source_hw: Height and width of the source, in pixels.
      target_hw: Height and width of the target, in pixels.

    Returns:
      (resized_height, resized_width, top, left): the size to resize the source to, and the position
      of the target in it.

    Raises:
      UserError: A side is below one pixel.
    """
    if min(*source_hw, *target_hw) < 1:
        raise UserError(
            f"cannot crop {source_hw} to {target_hw}: expected heights and widths of at least 1"
        )
    (height, width), (target_height, target_width) = source_hw, target_hw
    scale = max(target_width / width, target_height / height)
    resized_height, resized_width = round(height * scale), round(width * scale)
    top, left = (resized_height - target_height) // 2, (resized_width - target_width) // 2
    return resized_height, resized_width, top, left


def cover_crop(frames: np.ndarray, height: int, width: int, nearest: bool = False) -> np.ndarray:
    """Resizes an image or a video until it covers the size, then crops the center.

    Source: `i2v` in upstream Wan2.2, `wan/textimage2video.py`.

    Args:
      frames: uint8 [H, W, 3] or [F, H, W, 3].
      height: Target height, in pixels.
      width: Target width, in pixels.
      nearest: Use nearest-neighbor resampling, for maps, whose colors must not mix; otherwise
        Lanczos.

    Returns:
      uint8 [height, width, 3] or [F, height, width, 3].

    Raises:
      UserError: The frames are something else, or the size is below one pixel.
    """
    if frames.ndim == 3:
        return cover_crop(frames[None], height, width, nearest)[0]
    check_frames(frames, "frames")
    resized_height, resized_width, top, left = cover_geometry(
        (frames.shape[1], frames.shape[2]), (height, width)
    )
    resample = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    cropped = np.empty((len(frames), height, width, 3), np.uint8)
    for source, target in zip(frames, cropped, strict=True):
        resized = Image.fromarray(source).resize((resized_width, resized_height), resample)
        target[:] = np.asarray(resized.crop((left, top, left + width, top + height)))
    return cropped


def to_float(frames: Frames) -> Frames:
    """Converts pixels 0..255 to the models' range [-1, 1].

    Args:
      frames: uint8, any shape; a numpy array or a jax one.

    Returns:
      float32, the same shape.
    """
    return frames.astype(np.float32) / 127.5 - 1.0


def to_uint8(video: Frames) -> Frames:
    """Converts the models' range [-1, 1] to pixels 0..255, rounded and clipped.

    Args:
      video: Floats, any shape; a numpy array or a jax one.

    Returns:
      uint8, the same shape.
    """
    return ((video + 1.0) * 127.5).clip(0.0, 255.0).round().astype(np.uint8)
