"""Sprites: a folder of `python -m flashmotion_jax.data.sprites`, whose colors tell objects apart.

`clip_frames` compares a video with a clip in memory, whose masks are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flashmotion_jax.data.sprites import PALETTE, Clip
from flashmotion_jax.evaluation.benchmarks.magicdata import MagicDataLayout
from flashmotion_jax.evaluation.metrics.base import Frame

#: RGB to the plane of colors without brightness, where hue is a direction.
_TO_CHROMA_32 = np.array([[1, 0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]], np.float32)

#: Share of a color's chroma from which on a pixel is the object's: half of it at an edge, times the
#: mean brightness of textures, about 0.8. Backgrounds stay below it.
_MIN_SHARE = 0.4


class SpritesFolder(MagicDataLayout):
    """All frames of each clip."""

    segmenter = "colors"


def segment(video_FHW3: np.ndarray, colors: Sequence[str]) -> np.ndarray:
    """Finds the objects of a clip by their colors.

    A pixel goes to the nearest hue if it has enough of that color's chroma. Where two objects
    meet, their mixture may have the hue of a third (red and green make yellow): only pixels with
    at least four of nine neighbors, and those that touch them, are kept.

    Args:
      video_FHW3: uint8 `[F, H, W, 3]`.
      colors: Keys of `PALETTE`, one for each object of the clip. A color that is not among them
        goes to the nearest of them.

    Returns:
      int64 labels `[F, H, W]`: 0 for the background, 1..K for the objects in the order of `colors`.

    Raises:
      ValueError: The video has another shape or dtype, or a color is unknown, or there are none.
    """
    _check_video(video_FHW3)
    if not colors or not set(colors) <= set(PALETTE):
        raise ValueError(f"colors={colors!r}: expected some of {', '.join(PALETTE)}")
    chroma_K2 = np.array([PALETTE[color] for color in colors], np.float32) @ _TO_CHROMA_32
    size_K = np.linalg.norm(chroma_K2, axis=1)
    along_FHWK = video_FHW3.astype(np.float32) @ _TO_CHROMA_32 @ (chroma_K2.T / size_K)
    nearest_FHW = along_FHWK.argmax(axis=-1)
    found_FHW = along_FHWK.max(axis=-1) >= _MIN_SHARE * size_K[nearest_FHW]
    labels_FHW = np.zeros(found_FHW.shape, np.int64)
    for k in range(len(colors)):
        labels_FHW[_without_specks(found_FHW & (nearest_FHW == k))] = k + 1
    return labels_FHW


def clip_frames(video_FHW3: np.ndarray, clip: Clip) -> Iterator[Frame]:
    """The frames of a generated video beside those of the clip that it was generated from.

    Objects that enter after frame 0 count, too; the exported folder has only those of frame 0.

    Args:
      video_FHW3: uint8, of the shape of the clip's video.
      clip: The ground truth.

    Raises:
      ValueError: The video has another shape or dtype than the clip's.
    """
    _check_video(video_FHW3)
    if video_FHW3.shape != clip.video.shape or len(clip.video) < 3:
        raise ValueError(
            f"a video of shape {video_FHW3.shape} for the clip {clip.id} of "
            f"{clip.video.shape}: expected equal shapes, with at least 3 frames"
        )
    labels_FHW = segment(video_FHW3, clip.colors)
    numbers_K = np.arange(1, len(clip.colors) + 1)[:, None, None]
    for f, pixels in enumerate(video_FHW3):
        yield Frame(
            pixels,
            clip.video[f],
            labels_FHW[f] == numbers_K,
            clip.masks_KFHW[:, f],
            background=None if clip.camera_moves else clip.static_FHW[f],
        )


def _without_specks(mask_FHW: np.ndarray) -> np.ndarray:
    core_FHW = mask_FHW & (_neighbors(mask_FHW) >= 4)
    for _ in range(2):  # the tips of a star are thinner than its core
        core_FHW = mask_FHW & (_neighbors(core_FHW) > 0)
    return core_FHW


def _neighbors(mask_FHW: np.ndarray) -> np.ndarray:
    """How many of the 3 x 3 pixels around each one are in the mask, uint8 `[F, H, W]`."""
    padded = np.pad(mask_FHW.astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def _check_video(video_FHW3: np.ndarray) -> None:
    if video_FHW3.dtype != np.uint8 or video_FHW3.ndim != 4 or video_FHW3.shape[-1] != 3:
        raise ValueError(
            f"a video of {video_FHW3.dtype} {video_FHW3.shape}: expected uint8 [F, H, W, 3]"
        )
