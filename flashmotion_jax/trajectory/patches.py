"""Connected patches of labels in a frame."""

from __future__ import annotations

import numpy as np


def neighbors(labels_HW: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The labels of the eight neighbors of pixels.

    Args:
      labels_HW: Unsigned.
      at: Flat indices of P pixels.

    Returns:
      [8, P]; 0 outside the frame.
    """
    stride = labels_HW.shape[1] + 2
    padded = np.pad(labels_HW, 1).ravel()
    y, x = np.divmod(at, labels_HW.shape[1])
    center = (y + 1) * stride + x + 1
    offsets = [dy * stride + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return np.stack([padded[center + offset] for offset in offsets])


def drop_patches(labels_HW: np.ndarray, least: int) -> None:
    """Sets connected patches of fewer than `least` pixels to 0, in place.

    Works on runs of equal labels along rows: runs that touch in adjacent rows repeatedly take the
    lower of their numbers until nothing changes.
    """
    # A column of background ends the last run of each row.
    flat = np.pad(labels_HW, ((0, 0), (0, 1))).ravel()
    starts = np.flatnonzero(np.concatenate([flat[:1] != 0, flat[1:] != flat[:-1]]))
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
    small = np.flatnonzero(areas[patch] < least)
    y, x = np.divmod(starts[small], stride)
    for row, start, length in zip(y.tolist(), x.tolist(), lengths[small].tolist(), strict=True):
        labels_HW[row, start : start + length] = 0
