"""Label images, as segmenters and paint programs save them: one object per label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.keyframes import Keyframe
from flashmotion_jax.trajectory.masks import Mask
from flashmotion_jax.trajectory.palette import PALETTE
from flashmotion_jax.trajectory.schema import TrackedObject


def objects_from_label_png(path: str | Path) -> tuple[TrackedObject, ...]:
    """Makes one object per label of an image, with its mask and its box on frame 0.

    Args:
      path: An image. The values of grayscale and palette images are label numbers, with 0 for the
        background; color images have one color per object on black or transparency.

    Returns:
      Objects 1, 2, ... sorted by label number or by (r, g, b) and named after them. The canvas of
      their trajectory must have the size of the image, `objects[0].mask.size`.

    Raises:
      UserError: The image cannot be read, or has no label or more than 21.
    """
    pixels, is_color = read_labels(path)
    labels = np.setdiff1d(pixels, [0])
    if not 1 <= len(labels) <= len(PALETTE):
        raise UserError(
            f"{path} has {len(labels)} labels, expected 1 to {len(PALETTE)}: "
            "save it on black and without antialiasing"
        )
    objects = []
    for object_id, label in enumerate(labels.tolist(), start=1):
        mask = Mask.from_array(pixels == label)
        name = f"#{label:06x}" if is_color else f"label {label}"
        objects.append(TrackedObject(object_id, (Keyframe(0, mask.box()),), name, mask=mask))
    return tuple(objects)


def read_labels(path: str | Path) -> tuple[np.ndarray, bool]:
    """Reads the labels of an image.

    Args:
      path: As in `objects_from_label_png`.

    Returns:
      int32 [H, W], 0 for the background, and whether the labels are colors, 0xRRGGBB.

    Raises:
      UserError: The image cannot be read.
    """
    try:
        with Image.open(path) as image:
            is_color = image.mode not in ("1", "L", "P", "I", "I;16")
            pixels = np.asarray(image.convert("RGBA") if is_color else image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable image: {error}") from error
    if is_color:
        # Four bytes as one number, 0xRRGGBBAA, because videos have 100 million pixels.
        rgba = np.ascontiguousarray(pixels).view(">u4")[..., 0].astype(np.uint32)
        pixels = (rgba >> 8) * (rgba & 255 > 0)
    return pixels.astype(np.int32), is_color
