"""Images: reading, resizing, and conversion between pixels and the range of the models.

This module imports no jax.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from flashmotion_jax.runtime.errors import UserError, is_transient
from flashmotion_jax.runtime.limits import check_image_size

Frames = TypeVar("Frames", bound=Any)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".heic", ".heif")

#: What Pillow raises for a file that it cannot read.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


#: Pillow's names of the formats that are read. Others run programs (EPS) or are rare.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "HEIF", "JPEG2000")
#: Brands of HEIC files, at byte 8.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@contextmanager
def open_image(path: str | Path) -> Generator[Image.Image, None, None]:
    """Opens an image, turned by its EXIF orientation.

    Args:
      path: A PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, AVIF or JPEG 2000 file; HEIC with the extra
        `heic`.

    Yields:
      The image in the mode of the file; of several images in a file, the first.

    Raises:
      UserError: The file is missing, is not such an image, or has more pixels than the active
        limits allow; or the block raised an error of Pillow.
      OSError: The disk or the network failed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no image at {path}: give the path of a PNG, JPEG or WebP file")
    try:
        _prepare_heif(path)
        Image.init()
        with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
            check_image_size(image.height, image.width, path)
            ImageOps.exif_transpose(image, in_place=True)
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError as error:  # the largest that Pillow opens, 179 million
        raise UserError(f"{path} is too large ({error}): scale it down") from error
    except UNREADABLE as error:
        if is_transient(error):
            raise
        raise UserError(
            f"{path} is not a readable image ({error}): expected a complete PNG, JPEG or WebP file"
        ) from error


def _prepare_heif(path: Path) -> None:
    """Makes Pillow able to read a HEIC file, the format of iPhones.

    Raises:
      UserError: The file is one, and the extra `heic` is not installed.
    """
    with path.open("rb") as file:
        head = file.read(64)
    is_heif = head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head
    if not is_heif or "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(
            f"{path} is a HEIC image, which needs pip install 'flashmotion_jax[heic]': install it, "
            "or convert the image to PNG or JPEG"
        ) from error
    pillow_heif.register_heif_opener()


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image as an image viewer would show it.

    Args:
      path: As in `open_image`. Transparency is composited over black, grayscale becomes RGB, 16-bit
        grayscale keeps its upper 8 bits, and floats from 0 to 1 are scaled.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: The image cannot be read, or its pixels have no known meaning as colors.
    """
    with open_image(path) as image:
        if image.mode.startswith("I") or image.mode == "F":
            gray = _to_uint8(image, Path(path))
            return np.repeat(gray[..., None], 3, axis=-1)
        if not image.has_transparency_data:
            return np.asarray(image.convert("RGB"))
        rgba = image.convert("RGBA")
    black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, rgba).convert("RGB"))


def _to_uint8(image: Image.Image, path: Path) -> np.ndarray:
    """The pixels of a grayscale image with more than 8 bits, as uint8 [H, W]."""
    pixels = np.asarray(image)
    if image.mode.startswith("I;16"):
        return (pixels >> 8).astype(np.uint8)
    lowest, highest = pixels.min(), pixels.max()
    if image.mode == "F" and 0 <= lowest <= highest <= 1:
        return np.rint(pixels * 255).astype(np.uint8)
    kind = "floats" if image.mode == "F" else "32-bit integers"
    raise UserError(
        f"{path} has {kind} from {lowest:g} to {highest:g} as pixels, whose brightness is unknown: "
        "save it with 8 or 16 bits per channel, or as floats from 0 to 1"
    )


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
