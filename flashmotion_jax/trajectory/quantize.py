"""Restores the exact colors of lossy map videos, and with them the object of each pixel."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.palette import PALETTE

# Any two colors of the palette differ by at least 15 in some channel, so at most one is within 7.
_TOLERANCE = 7
_DARK = 24
_OFFSETS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def find_colors(frame_HW3: np.ndarray) -> np.ndarray:
    """Finds the objects' colors on frame 0, the largest area first.

    A color close to one of MagicData's palette becomes that color; other colors, such as those of
    DAVIS, stay. Only flat areas count, because edges in a lossy video are mixtures.

    Args:
      frame_HW3: uint8, frame 0 of the maps.

    Returns:
      uint8 [C, 3], empty for a black frame.
    """
    pixels = frame_HW3.astype(np.int16)
    step_y = np.abs(np.diff(pixels, axis=0)).max(axis=-1) <= _TOLERANCE
    step_x = np.abs(np.diff(pixels, axis=1)).max(axis=-1) <= _TOLERANCE
    flat = (step_y[:-1] & step_y[1:])[:, 1:-1] & (step_x[:, :-1] & step_x[:, 1:])[1:-1]
    flat &= (pixels.max(axis=-1) > _DARK)[1:-1, 1:-1]
    rest = pixels[1:-1, 1:-1][flat]
    least = _least_area(frame_HW3.shape)
    colors: list[np.ndarray] = []
    while len(rest) >= least:
        codes, counts = np.unique(rest @ np.array([65536, 256, 1]), return_counts=True)
        code = codes[counts.argmax()]
        distance = np.abs(rest - [code >> 16, code >> 8 & 255, code & 255]).max(axis=-1)
        near = rest[distance <= _TOLERANCE]
        if len(near) < least:
            break
        colors.append(_nearest_named(np.median(near, axis=0)))
        rest = rest[distance > 2 * _TOLERANCE]
    return np.array(colors, np.uint8).reshape(-1, 3)


def _least_area(shape: tuple[int, ...]) -> int:
    """Number of pixels below which a patch of color is taken for compression noise."""
    return max(4, shape[0] * shape[1] // 10_000)


def _nearest_named(color: np.ndarray) -> np.ndarray:
    distance = np.abs(PALETTE - color).max(axis=-1)
    return PALETTE[distance.argmin()] if distance.min() <= _TOLERANCE else color


def label_frames(frames: np.ndarray, colors_C3: np.ndarray) -> np.ndarray:
    """Assigns each pixel to an object.

    Pixels close to a color get its label. Mixtures next to them get the label of the neighbor if
    they are closer to its color than to black. Then tiny patches are removed. Frames with exact
    colors only are labeled directly.

    Args:
      frames: uint8 [F, H, W, 3].
      colors_C3: uint8, from `find_colors`.

    Returns:
      uint8 [F, H, W]: 0 for the background, 1 + index of the color for objects.
    """
    table = np.concatenate([np.zeros((1, 3)), colors_C3]).astype(np.int16)
    distances = np.abs(table[:, None] - table).max(axis=-1)
    reach = min(2 * _DARK, int(distances[distances > 0].min(initial=255)) // 2)
    labels = np.zeros(frames.shape[:3], np.uint8)
    for frame_HW3, labels_HW in zip(frames, labels, strict=True):
        y, x = np.nonzero(frame_HW3.any(axis=-1))
        pixels_P3 = frame_HW3[y, x].astype(np.int16)
        distance_PC = np.abs(pixels_P3[:, None] - table).max(axis=-1)
        nearest, distance = distance_PC.argmin(axis=1), distance_PC.min(axis=1)
        labels_HW[y, x] = np.where(distance <= reach, nearest, 0)
        if not distance.any():
            continue
        mixed = (distance > reach) & (pixels_P3.max(axis=-1) > _DARK)
        y, x = y[mixed], x[mixed]
        neighbor = _neighbors(labels_HW, y, x).max(axis=0)
        bright = 2 * pixels_P3[mixed].max(axis=-1) > table[neighbor].max(axis=-1)
        labels_HW[y, x] = np.where(bright, neighbor, 0)
        _drop_patches(labels_HW, _least_area(labels_HW.shape))
    return labels


def _neighbors(labels_HW: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The labels of the eight neighbors of P pixels, [8, P]; 0 outside the frame."""
    padded = np.pad(labels_HW, 1)
    return np.stack([padded[y + 1 + dy, x + 1 + dx] for dy, dx in _OFFSETS])


def _drop_patches(labels_HW: np.ndarray, least: int) -> None:
    """Sets connected patches of fewer than `least` pixels to 0, in place.

    Works on runs of equal labels along rows: runs that touch in adjacent rows repeatedly take the
    lower of their numbers until nothing changes.
    """
    # A column of background ends the last run of each row.
    flat = np.pad(labels_HW, ((0, 0), (0, 1))).ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    lengths = np.diff(starts, append=flat.size)
    starts, lengths = starts[flat[starts] > 0], lengths[flat[starts] > 0]
    ends, stride = starts + lengths, labels_HW.shape[1] + 1
    first = np.searchsorted(ends, starts + stride, side="left")
    touching = np.searchsorted(starts, ends + stride, side="right") - first
    upper = np.repeat(np.arange(len(starts)), touching)
    lower = np.arange(len(upper)) + np.repeat(first - np.cumsum(touching) + touching, touching)
    same = flat[starts[upper]] == flat[starts[lower]]
    upper, lower = upper[same], lower[same]
    patch = np.arange(len(starts))
    while (patch[upper] != patch[lower]).any():
        lowest = np.minimum(patch[upper], patch[lower])
        np.minimum.at(patch, upper, lowest)
        np.minimum.at(patch, lower, lowest)
        patch = patch[patch]
    areas = np.bincount(patch, weights=lengths)
    for run in np.flatnonzero(areas[patch] < least):
        y, x = divmod(int(starts[run]), stride)
        labels_HW[y, x : x + lengths[run]] = 0


def exact_maps(frames: np.ndarray) -> np.ndarray:
    """Restores the exact colors of a lossy map video, uint8 [F, H, W, 3].

    Raises:
      UserError: Frame 0 shows no object.
    """
    colors_C3 = find_colors(frames[0])
    if not len(colors_C3):
        raise UserError("frame 0 is black; the first frame of a map video must show colored masks")
    table = np.concatenate([np.zeros((1, 3), np.uint8), colors_C3])
    return table[label_frames(frames, colors_C3)]
