"""Images that a video shows on later frames than the first: a last image, or key frames.

A latent frame after the first stands for several frames, so a key frame is held over all of them:
frame f belongs to latent frame t = ceil(f / factor), whose last frame is t * factor.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flashmotion_jax.runtime.errors import UserError

#: Largest difference, relative to its own, between an image's aspect ratio and that of the first.
_ASPECT = 0.02


@dataclasses.dataclass(frozen=True)
class KeyImages:
    """Images of the latent frames that are given beside the first.

    Attributes:
      frames: K latent frames, increasing, the same of all videos.
      images: uint8 `[B, K, H, W, 3]`.
    """

    frames: tuple[int, ...]
    images: np.ndarray


def key_images(
    last_image: Any,
    key_frames: Mapping[int, Any] | None,
    first: Sequence[np.ndarray | None],
    *,
    num_frames: int,
    factor: int,
    read: Callable[[Any], list[np.ndarray | None]],
    fit: Callable[[list[np.ndarray | None]], np.ndarray | None],
) -> KeyImages | None:
    """Reads the images of later frames.

    Args:
      last_image: Image of the last frame, or a list with one per video; None without.
      key_frames: Frame number -> image or list.
      first: Image of frame 0 of each video.
      num_frames: F, frames of the video.
      factor: Frames per latent frame after the first.
      read: Reads an image, or a list of them, for each video.
      fit: Resizes an image of each video to uint8 `[B, 1, H, W, 3]`.

    Returns:
      The images, or None if there are none.

    Warns:
      UserWarning: A key frame is held longer than one would expect.

    Raises:
      UserError: There is no first image, a frame is not in the video or given twice, or an image
        has another shape than the first.
    """
    wanted = dict(key_frames or {})
    if num_frames == 1 and (wanted or last_image is not None):
        raise UserError("a last image or key frames in a video of one frame; expected more frames")
    for frame in wanted:
        if not isinstance(frame, int | np.integer) or not 0 < frame < num_frames:
            raise UserError(
                f"key frame {frame!r:.20}; expected a whole number from 1 to {num_frames - 1}; "
                "frame 0 is the image"
            )
    if last_image is not None:
        if num_frames - 1 in wanted:
            raise UserError(
                f"key frame {num_frames - 1} is the last frame, for which there is a last image; "
                "give one of them"
            )
        wanted[num_frames - 1] = last_image
    if not wanted:
        return None
    if any(image is None for image in first):
        raise UserError("a last image or key frames without a first image; give that, too")
    found: dict[int, tuple[int, np.ndarray]] = {}
    for frame in sorted(wanted):
        latent = -(-frame // factor)
        if latent in found:
            raise UserError(
                f"key frames {found[latent][0]} and {frame} are in one latent frame, which stands "
                f"for frames {_span(latent, factor)}; leave one out"
            )
        images = read(wanted[frame])
        for image, image_0 in zip(images, first, strict=True):
            _require_aspect(frame, image, image_0)
        fitted = fit(images)
        assert fitted is not None
        found[latent] = (frame, fitted)
    held = [
        f"{frame} over {_span(latent, factor)}"
        for latent, (frame, _) in found.items()
        if frame != latent * factor
    ]
    if held:
        warnings.warn(
            f"key frames are held over whole latent frames: {'; '.join(held)}", stacklevel=2
        )
    return KeyImages(tuple(found), np.concatenate([image for _, image in found.values()], axis=1))


def _span(latent: int, factor: int) -> str:
    return f"{(latent - 1) * factor + 1} to {latent * factor}"


def _require_aspect(frame: int, image: np.ndarray | None, first: np.ndarray | None) -> None:
    if image is None or first is None:
        raise UserError(f"no image for key frame {frame} of some videos; give one for each")
    (height, width), (height_0, width_0) = image.shape[:2], first.shape[:2]
    if abs(width * height_0 / (height * width_0) - 1) > _ASPECT:
        raise UserError(
            f"the image of frame {frame} has {width} x {height} pixels, the first {width_0} x "
            f"{height_0}; expected the same aspect ratio, so crop one of them"
        )
