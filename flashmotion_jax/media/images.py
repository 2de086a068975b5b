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

from flashmotion_jax.runtime.errors import UserError, is_transient, require_file
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
    require_file(path, "image", "give the path of a PNG, JPEG or WebP file")
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
