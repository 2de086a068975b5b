"""Label images and masks: images whose pixels are numbers or names of objects. Imports no jax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from flashmotion_jax.media.images import open_image
from flashmotion_jax.runtime.errors import UserError

#: Formats whose compression changes pixels.
_LOSSY = ("JPEG", "MPO", "HEIF", "AVIF")
#: Opacity from which a pixel of a stencil is inside.
_OPAQUE = 128


def read_labels(path: str | Path) -> tuple[np.ndarray, bool]:
    """Reads the labels of an image.

    Args:
      path: As in `open_image`. Pixels of grayscale images, of any number of bits, and of palette
        images are labels. In color images each color is one, without black and transparency. A
        palette image is one of colors if black or transparency is not its entry 0. Black shapes on
        transparency (a stencil) and floats from 0 to 1 (a soft mask, inside from 0.5) are label 1.

    Returns:
      int32 [H, W], 0 for the background, and whether the labels are colors, 0xRRGGBB.

    Raises:
      UserError: The image cannot be read, or has pixels that are no labels.
    """
    with open_image(path) as image:
        if image.mode == "F" or image.mode.startswith("I"):
            return _whole(np.asarray(image), path), False
        if image.mode in ("1", "L") or (image.mode == "P" and not _names_background(image)):
            return np.asarray(image).astype(np.int32), False
        # Four bytes as one number, because videos have 100 million pixels.
        if not image.has_transparency_data:
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            pixels = rgb.tobytes("raw", "BGRX")  # little-endian 0x00RRGGBB
            return np.frombuffer(pixels, "<i4").reshape(image.height, image.width), True
        # 0xRRGGBBAA
        rgba = np.asarray(image.convert("RGBA")).view(">u4")[..., 0].astype(np.uint32)
    visible = rgba & 255 > 0
    labels = ((rgba >> 8) * visible).astype(np.int32)
    if not labels.any() and visible.any() and not visible.all():
        return (rgba & 255 >= _OPAQUE).astype(np.int32), False
    return labels, True


def is_lossy(path: str | Path) -> bool:
    """Whether an image's compression changes pixels.

    Raises:
      UserError: The image cannot be read.
    """
    with open_image(path) as image:
        return image.format in _LOSSY


def read_mask(path: str | Path) -> np.ndarray:
    """Reads a mask, bool [H, W]: True where pixels are neither black nor transparent.

    Other than `read_labels`, palettes count as colors, and of an image with lossy compression the
    half of its brightness is the threshold.

    Raises:
      UserError: The image cannot be read, or has pixels that are no mask.
    """
    with open_image(path) as image:
        if image.format in _LOSSY:
            brightness = np.asarray(image.convert("RGB")).max(axis=-1)
            return brightness > brightness.max() // 2
        if image.mode == "P":
            rgba = np.asarray(image.convert("RGBA"))
            return rgba[..., :3].any(axis=-1) & (rgba[..., 3] > 0)
    return read_labels(path)[0] != 0


def _whole(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Checks that values are label numbers, or else takes floats from 0 to 1 as a soft mask."""
    lowest, highest = values.min(), values.max()  # NaN if any is
    if 0 <= lowest <= highest < 2**31:
        if (values == np.floor(values)).all():
            return values.astype(np.int32)
        if highest <= 1:
            return (values >= 0.5).astype(np.int32)
    raise UserError(
        f"{path} has values from {lowest:g} to {highest:g}: expected whole numbers from 0, or "
        "floats from 0 to 1"
    )


def _names_background(image: Image.Image) -> bool:
    """Whether black or transparency of a palette image has an entry other than 0."""
    rgba = np.asarray(image.convert("RGBA"))
    empty = (rgba[..., 3] == 0) | ~rgba[..., :3].any(axis=-1)
    return bool(empty.any() and not empty[np.asarray(image) == 0].any())
