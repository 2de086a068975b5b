"""Images: reading them, the size Wan2.2 works at, and pixels to the models' range and back.

Numpy only, no jax.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from flashmotion_jax.runtime.errors import UserError

Frames = TypeVar("Frames", bound=Any)

#: What Pillow raises for a file that it cannot read.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def read_image(path: str | Path) -> np.ndarray:
    """Reads a photograph the way a viewer shows it.

    Args:
      path: Any format Pillow knows. The EXIF orientation is applied, transparency is composited
        over black, greyscale becomes RGB, 16-bit greyscale keeps its upper 8 bits.

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
      frames: Anything but uint8 `[F, H, W, 3]` with at least one pixel is refused.
      name: What the message calls it.

    Raises:
      UserError: The dtype or the shape is another.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise UserError(f"{name}: {frames.dtype} {list(frames.shape)}, expected uint8 [F, H, W, 3]")


def best_size(
    height: int, width: int, max_area: int, multiples: tuple[int, int]
) -> tuple[int, int]:
    """The size Wan2.2 gives the video of an image: its aspect ratio, as many pixels as allowed.

    Two candidates round the ideal size down to the multiples, one starting from the width, one
    from the height, and fill `max_area` with the other side; the nearer aspect ratio wins.

    Source: `best_output_size` in upstream Wan2.2, `wan/utils/utils.py`.

    Args:
      height: Of the image, in pixels.
      width: Of the image, in pixels.
      max_area: Pixels a frame may have.
      multiples: What height and width are multiples of: the pixels of a token.

    Returns:
      (height, width) in pixels.

    Raises:
      UserError: No size of about this aspect ratio fits.
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
    """Where "resize to cover, then crop the centre" puts the target in the resized source.

    Source: `i2v` in upstream Wan2.2, `wan/textimage2video.py`.

    Args:
      source_hw: Height and width of the source, in pixels.
      target_hw: Height and width wanted, in pixels.

    Returns:
      (resized_height, resized_width, top, left): the whole source is resized to the first two,
      the target starts at the last two.

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
    """Resizes an image or a video until it covers the size, then crops the centre.

    Source: `i2v` in upstream Wan2.2, `wan/textimage2video.py`.

    Args:
      frames: uint8 [H, W, 3] or [F, H, W, 3].
      height: Wanted, in pixels.
      width: Wanted, in pixels.
      nearest: For maps, whose colors must not mix; pictures are resized with Lanczos.

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
    """Pixels 0..255 to the models' [-1, 1].

    Args:
      frames: uint8, any shape; a numpy array or a jax one.

    Returns:
      float32, the same shape.
    """
    return frames.astype(np.float32) / 127.5 - 1.0


def to_uint8(video: Frames) -> Frames:
    """The models' [-1, 1] to pixels 0..255, rounded and clipped: the inverse of `to_float`.

    Args:
      video: Floats, any shape; a numpy array or a jax one.

    Returns:
      uint8, the same shape.
    """
    return ((video + 1.0) * 127.5).clip(0.0, 255.0).round().astype(np.uint8)
