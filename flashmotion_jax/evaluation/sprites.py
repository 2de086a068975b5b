"""Exact measures of generated Sprites clips: their colors are known, so no model segments them.

Every measure leaves frame 0 out, which is given. IoU alone rewards blur: it is reported with
`sharpness` and a Frechet distance of videos beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flashmotion_jax.data.sprites import PALETTE, Clip
from flashmotion_jax.evaluation.bootstrap import Interval, interval, paired_difference
from flashmotion_jax.evaluation.energy import gradient_energy, temporal_variance
from flashmotion_jax.evaluation.iou import bounding_boxes, box_iou, centroid_error, mask_iou
from flashmotion_jax.runtime.errors import UserError

#: RGB onto the plane of colors without brightness, where hue is a direction.
_TO_CHROMA_32 = np.array([[1, 0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]], np.float32)

#: Share of a color's chroma from which a pixel is the object's: half of it at an edge, times the
#: mean brightness of textures, which is about 0.8. Backgrounds stay below it.
_MIN_SHARE = 0.4

#: Mean squared error of rounding to whole numbers, the smallest that 8 bits can show.
_ROUNDING_ERROR = 1 / 12


class Measures(NamedTuple):
    """What was measured in one clip. Means are over the frames in which an object is visible.

    Attributes:
      mask_iou: of the segmented and the true visible masks, 0..1.
      box_iou: of the boxes around them, 0..1.
      centroid_error: in pixels.
      lost: share of the visible objects and frames in which no pixel has the object's color.
        They count above with an IoU of 0 and an error of half of the diagonal.
      psnr: in dB, of all pixels; at most 58.9, an error of rounding. It says how good a
        reconstruction is; a generated video may be right and still differ from the real one.
      background_psnr: of the pixels that no object touches. NaN where the camera moves: no request
        says where to.
      gradient_energy: of the generated video and of the real one.
      temporal_variance: likewise.
    """

    mask_iou: float
    box_iou: float
    centroid_error: float
    lost: float
    psnr: float
    background_psnr: float
    gradient_energy: tuple[float, float]
    temporal_variance: tuple[float, float]


def segment(video_FHW3: np.ndarray, colors: Sequence[str]) -> np.ndarray:
    """Finds the objects of a clip by their colors.

    A pixel goes to the nearest hue where it has enough of that color's chroma. Where two objects
    meet, their mixture may have the hue of a third (red and green make yellow): only what holds
    together, at least four of nine neighbours, and what touches it is kept.

    Args:
      video_FHW3: uint8 [F, H, W, 3].
      colors: keys of `PALETTE`, one for each object of the clip. A color that is not among them
        goes to the nearest of them.

    Returns:
      int64 labels [F, H, W]: 0 for the background, 1..K for the objects in the order of `colors`.

    Raises:
      UserError: the video has another shape or dtype, or a color is unknown, or there are none.
    """
    _check_video(video_FHW3)
    if not colors or not set(colors) <= set(PALETTE):
        raise UserError(f"colors={colors!r}: expected some of {', '.join(PALETTE)}")
    chroma_K2 = np.array([PALETTE[color] for color in colors], np.float32) @ _TO_CHROMA_32
    size_K = np.linalg.norm(chroma_K2, axis=1)
    along_FHWK = video_FHW3.astype(np.float32) @ _TO_CHROMA_32 @ (chroma_K2.T / size_K)
    nearest_FHW = along_FHWK.argmax(axis=-1)
    found_FHW = along_FHWK.max(axis=-1) >= _MIN_SHARE * size_K[nearest_FHW]
    labels_FHW = np.zeros(found_FHW.shape, np.int64)
    for k in range(len(colors)):
        labels_FHW[_without_specks(found_FHW & (nearest_FHW == k))] = k + 1
    return labels_FHW


def measure(generated_FHW3: np.ndarray, clip: Clip) -> Measures:
    """Compares a generated video with the clip whose image and trajectory it was made from.

    Args:
      generated_FHW3: uint8, of the shape of the clip's video.
      clip: the truth.

    Raises:
      UserError: the video has another shape or dtype than the clip's.
    """
    _check_video(generated_FHW3)
    if generated_FHW3.shape != clip.video.shape or len(clip.video) < 3:
        raise UserError(
            f"a video of shape {generated_FHW3.shape} for the clip {clip.id} of "
            f"{clip.video.shape}: expected equal shapes, with at least 3 frames"
        )
    generated, real = generated_FHW3[1:], clip.video[1:]
    labels_FHW = segment(generated, clip.colors)
    pred_KFHW = labels_FHW == np.arange(1, len(clip.colors) + 1)[:, None, None, None]
    true_KFHW = clip.masks_KFHW[:, 1:]
    pred_KF4, true_KF4 = bounding_boxes(pred_KFHW), bounding_boxes(true_KFHW)
    background_FHW = clip.static_FHW[1:] & (not clip.camera_moves)
    return Measures(
        mask_iou=_visible_mean(mask_iou(pred_KFHW, true_KFHW), true_KFHW),
        box_iou=_visible_mean(box_iou(pred_KF4, true_KF4), true_KFHW),
        centroid_error=_visible_mean(centroid_error(pred_KFHW, true_KFHW), true_KFHW),
        lost=_visible_mean(~pred_KFHW.any(axis=(2, 3)), true_KFHW),
        psnr=_psnr(generated, real, np.ones(real.shape[:3], bool)),
        background_psnr=_psnr(generated, real, background_FHW),
        gradient_energy=(gradient_energy(generated), gradient_energy(real)),
        temporal_variance=(temporal_variance(generated), temporal_variance(real)),
    )


def summarise(measures: Sequence[Measures], seed: int = 0) -> dict[str, Interval]:
    """The figures of a system on a set of clips.

    Args:
      measures: one for each clip.
      seed: of the bootstrap.

    Returns:
      `mask_iou`, `box_iou`, `centroid_error`, `lost`, `psnr` and `background_psnr` as means over
      clips; `sharpness` and `motion` as the gradient energy and the temporal variance of all
      generated videos relative to that of all real ones (in some real clip nothing moves, which has
      no ratio of its own); each with its 95 % interval.
    """
    return {
        name: interval(_column(measures, field), statistic, seed=seed)
        for name, (field, statistic) in _FIGURES.items()
    }


def compare(
    measures: Sequence[Measures], others: Sequence[Measures], seed: int = 0
) -> dict[str, Interval]:
    """The figures of one system minus those of another on the same clips.

    Args:
      measures: one for each clip.
      others: of the other system, for the same clips in the same order.
      seed: of the bootstrap.

    Returns:
      The differences of what `summarise` returns, each with its 95 % interval.

    Raises:
      UserError: the systems have not as many clips.
    """
    return {
        name: paired_difference(
            _column(measures, field), _column(others, field), statistic, seed=seed
        )
        for name, (field, statistic) in _FIGURES.items()
    }


def _ratio_of_sums(rows_N2: np.ndarray) -> float:
    generated, real = rows_N2.sum(axis=0)
    return generated / real if real else np.nan


#: Name -> the field of `Measures`, and what is made of all clips' values.
_FIGURES: dict[str, tuple[str, Callable[[np.ndarray], float]]] = {
    "mask_iou": ("mask_iou", np.mean),
    "box_iou": ("box_iou", np.mean),
    "centroid_error": ("centroid_error", np.mean),
    "lost": ("lost", np.mean),
    "sharpness": ("gradient_energy", _ratio_of_sums),
    "motion": ("temporal_variance", _ratio_of_sums),
    "psnr": ("psnr", np.mean),
    "background_psnr": ("background_psnr", np.mean),
}


def _column(measures: Sequence[Measures], field: str) -> np.ndarray:
    return np.array([getattr(measured, field) for measured in measures], np.float64)


def _without_specks(mask_FHW: np.ndarray) -> np.ndarray:
    core_FHW = mask_FHW & (_neighbours(mask_FHW) >= 4)
    for _ in range(2):  # the tips of a star are thinner than its core
        core_FHW = mask_FHW & (_neighbours(core_FHW) > 0)
    return core_FHW


def _neighbours(mask_FHW: np.ndarray) -> np.ndarray:
    """How many of the 3 x 3 pixels around each one are in the mask: uint8 [F, H, W]."""
    padded = np.pad(mask_FHW.astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def _visible_mean(values_KF: np.ndarray, true_KFHW: np.ndarray) -> float:
    visible_KF = true_KFHW.any(axis=(2, 3))
    return float(values_KF[visible_KF].mean()) if visible_KF.any() else np.nan


def _psnr(generated: np.ndarray, real: np.ndarray, where_FHW: np.ndarray) -> float:
    """In dB, over the pixels of a mask; NaN where it is empty."""
    error = generated[where_FHW].astype(np.float64) - real[where_FHW]
    if not error.size:
        return np.nan
    return float(10 * np.log10(255**2 / max(np.square(error).mean(), _ROUNDING_ERROR)))


def _check_video(video_FHW3: np.ndarray) -> None:
    if video_FHW3.dtype != np.uint8 or video_FHW3.ndim != 4 or video_FHW3.shape[-1] != 3:
        raise UserError(
            f"a video of {video_FHW3.dtype} {video_FHW3.shape}: expected uint8 [F, H, W, 3]"
        )
