"""Label images, as segmenters and paint programs save them: one object per label."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flashmotion_jax.media.images import read_image
from flashmotion_jax.media.labels import is_lossy, read_labels
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.keyframes import Keyframe
from flashmotion_jax.trajectory.masks import Mask
from flashmotion_jax.trajectory.quantize import find_colors, label_frames
from flashmotion_jax.trajectory.schema import TrackedObject

#: Labels that segmenters give to what is no object, beside small label numbers: DAVIS, VOC and
#: others in 8 bits, 16-bit images, and VOC's color.
_VOID_NUMBERS, _VOID_COLOR = (255, 65535), 0xE0E0C0
_WHITE = 0xFFFFFF
#: Number of labels that needs no further look at the image. Labels up to this number, or to twice
#: their count, are numbers of objects, beside which a void label is no object.
_SMALL = 21
#: Added to the label of black where white is the background.
_OPAQUE_BLACK = 1 << 24
#: Distance in pixels within which the two labels lie whose mixture a pixel is, and how far beyond
#: their values sharpening filters go, relative to their difference.
_REACH, _OVERSHOOT = 4, 0.2
#: Number of mixtures of colors that shows that an image was resized smoothly. Then all colors that
#: nowhere fill 3 x 3 pixels are left out.
_SMOOTH = 3
#: Largest difference in a channel between a color and its echo, and how much rarer echoes are.
_ECHO, _RARE = 26, 20
#: A label image has at most so many labels, and, above `_SMALL`, at least this share of labeled
#: pixels whose neighbors to the right and below have their label. Others are photographs.
_MOST_LABELS, _EVEN = 255, 0.6
#: Number of pixels above which an image is a photograph, and its labels are counted as they are.
_MOST_MIXED = 1_000_000
#: Pixels that are sorted or searched at a time.
_CHUNK = 2**20


def objects_from_label_png(path: str | Path) -> tuple[TrackedObject, ...]:
    """Makes one object per label of an image, with its mask and its box on frame 0.

    Warns of labels that are left out.

    Args:
      path: An image. The values of grayscale and palette images are label numbers, with 0 for the
        background; color images have one color per object on black, white or transparency.

    Returns:
      Objects 1, 2, ... sorted by label number or by (r, g, b) and named after them. The canvas of
      their trajectory must have the size of the image, `objects[0].mask.size`.

    Raises:
      UserError: The image cannot be read, has no label or more than 255, or is a photograph.
    """
    objects, notices = label_objects(path)
    for notice in notices:
        warnings.warn(f"{path}: {notice}", stacklevel=2)
    return objects


def label_objects(path: str | Path) -> tuple[tuple[TrackedObject, ...], tuple[str, ...]]:
    """Does what `objects_from_label_png` does, and returns what it warns of."""
    if is_lossy(path):
        pixels, notices = _restored(read_image(path)), ["colors are restored from a lossy image"]
        is_color = True
    else:
        pixels, is_color = read_labels(path)
        pixels, notices = _without_mixtures(pixels, is_color)
    pixels = _on_black(pixels, is_color, notices)
    labels = np.setdiff1d(_counts(pixels)[0], [0])
    few, most = 1 <= len(labels) <= _SMALL, len(labels) <= _MOST_LABELS
    if not few and not (len(labels) and most and _evenness(pixels) >= _EVEN):
        raise UserError(
            f"{path} has {len(labels)} labels, expected 1 to {_MOST_LABELS} that fill even areas: "
            "save it on black and without antialiasing"
        )
    objects = []
    for object_id, label in enumerate(labels.tolist(), start=1):
        mask = Mask.from_array(pixels == label)
        value = label % _OPAQUE_BLACK
        name = f"#{value:06x}" if is_color else f"label {value}"
        objects.append(TrackedObject(object_id, (Keyframe(0, mask.box()),), name, mask=mask))
    return tuple(objects), tuple(notices)


def _rows(labels_HW: np.ndarray) -> Iterator[slice]:
    """Slices of some rows: NumPy's sorting and searching would take copies of all pixels."""
    step = max(1, _CHUNK // labels_HW.shape[1])
    return (slice(top, top + step) for top in range(0, len(labels_HW), step))


def _is_in(labels_HW: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which pixels have one of some labels, bool [H, W]."""
    return np.concatenate([np.isin(labels_HW[rows], labels) for rows in _rows(labels_HW)])


def _counts(
    labels_HW: np.ndarray, where: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and their numbers of pixels."""
    found, counts = [np.zeros(0, labels_HW.dtype)], [np.zeros(0, np.int64)]
    for rows in _rows(labels_HW):
        some = labels_HW[rows] if where is None else labels_HW[rows][where[rows]]
        labels, numbers = np.unique(some, return_counts=True)
        found.append(labels)
        counts.append(numbers)
    labels, positions = np.unique(np.concatenate(found), return_inverse=True)
    totals = np.zeros(len(labels), np.int64)
    np.add.at(totals, positions, np.concatenate(counts))
    return labels, totals


def _evenness(labels_HW: np.ndarray) -> float:
    """The share of labeled pixels whose neighbors to the right and below have their label."""
    inner = labels_HW[:-1, :-1]
    even = (inner == labels_HW[1:, :-1]) & (inner == labels_HW[:-1, 1:])
    return float(even[inner != 0].mean()) if inner.any() else 0.0


def _restored(frame_HW3: np.ndarray) -> np.ndarray:
    """The labels, 0xRRGGBB, of a color image whose compression changed pixels."""
    colors_C3 = find_colors(frame_HW3)
    packed = colors_C3.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    return np.concatenate([[0], packed])[label_frames(frame_HW3[None], colors_C3)[0]]


def _on_black(labels_HW: np.ndarray, is_color: bool, notices: list[str]) -> np.ndarray:
    """Makes a white background 0, and removes labels of what is no object."""
    edge = np.concatenate([labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1]])
    white = _WHITE if is_color else 255
    if edge.all() and 2 * (edge == white).sum() > len(edge) and (labels_HW != white).any():
        notices.append("white is the background")
        black = np.where(labels_HW == 0, _OPAQUE_BLACK, labels_HW)
        return np.where(labels_HW == white, 0, black)
    others = np.setdiff1d(_counts(labels_HW)[0], [0, *_VOID_NUMBERS])
    for void in [_VOID_COLOR] if is_color else _VOID_NUMBERS:
        is_void = labels_HW == void
        # 255 beside larger numbers is one of them, and alone it is the object of a binary mask.
        are_small = is_color or others.max(initial=0) <= max(_SMALL, 2 * len(others))
        if is_void.any() and len(others) and are_small:
            name = f"the color #{void:06x}" if is_color else f"label {void}"
            notices.append(f"{name} marks pixels of no object and is left out")
            labels_HW = np.where(is_void, 0, labels_HW)
    return labels_HW


def _without_mixtures(labels_HW: np.ndarray, is_color: bool) -> tuple[np.ndarray, list[str]]:
    """Gives mixed pixels of an image that was resized smoothly to the labels that they are made of.

    A label is a mixture if it nowhere fills 3 x 3 pixels, and some of it lies between labels that
    do, in the image and in value.
    """
    padded = np.pad(labels_HW, 1, mode="edge")
    solid = np.ones(labels_HW.shape, bool)
    for y, x in np.ndindex(3, 3):
        solid &= padded[y : y + labels_HW.shape[0], x : x + labels_HW.shape[1]] == labels_HW
    del padded
    kept, areas = _counts(labels_HW, solid)
    doubtful = (labels_HW > 0) & ~_is_in(labels_HW, kept)
    y, x = np.nonzero(doubtful)
    if not 0 < len(y) < min(_MOST_MIXED, labels_HW.size / 2) or len(kept) < 2:
        return labels_HW, []
    between = _is_between(labels_HW, solid, y, x, is_color)
    if not between.any():
        return labels_HW, []
    mixtures = np.unique(labels_HW[y, x][between])
    if is_color and len(mixtures) >= _SMOOTH:
        mixtures = np.union1d(labels_HW[y, x], _echoes(kept, areas))
    count, mixed = len(mixtures), _is_in(labels_HW, mixtures)
    notice = (
        f"{count} mixed labels at edges are left out: the image was resized smoothly; resize label "
        "images with nearest neighbor"
    )
    return _filled(labels_HW, mixed, is_color), [notice]


def _echoes(colors: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The colors similar to much more frequent ones: sharpening filters echo edges."""
    values = _channels(colors, True)
    distance = np.abs(values[:, :, None] - values[:, None]).max(axis=0)
    return colors[((distance <= _ECHO) & (areas[:, None] * _RARE <= areas)).any(axis=1)]


def _is_between(
    labels_HW: np.ndarray, solid_HW: np.ndarray, y: np.ndarray, x: np.ndarray, is_color: bool
) -> np.ndarray:
    """Whether each of P pixels lies between different solid labels, in the image and in value."""
    own = _channels(labels_HW[y, x], is_color)
    lowest, highest = np.full(own.shape, 2**30), np.full(own.shape, -(2**30))
    for dy, dx in np.ndindex(2 * _REACH + 1, 2 * _REACH + 1):
        row = np.clip(y + dy - _REACH, 0, labels_HW.shape[0] - 1)
        column = np.clip(x + dx - _REACH, 0, labels_HW.shape[1] - 1)
        values, counts = _channels(labels_HW[row, column], is_color), solid_HW[row, column]
        np.minimum(lowest, values, out=lowest, where=counts)
        np.maximum(highest, values, out=highest, where=counts)
    slack = _OVERSHOOT * (highest - lowest) if is_color else 0
    within = (lowest - slack <= own) & (own <= highest + slack)
    return np.all(within, axis=0) & np.any(lowest < highest, axis=0)


def _channels(labels: np.ndarray, is_color: bool) -> np.ndarray:
    """The values that mix, int32 [C, ...]: red, green and blue of colors, else the number."""
    return np.stack([labels >> 16, labels >> 8 & 255, labels & 255]) if is_color else labels[None]


def _filled(labels_HW: np.ndarray, unknown: np.ndarray, is_color: bool) -> np.ndarray:
    """Gives unknown pixels the most similar label of a neighbor, from the edges inwards."""
    labels_HW, unknown, values = labels_HW.copy(), unknown.copy(), labels_HW
    for _ in range(2 * _REACH):
        y, x = np.nonzero(unknown)
        own = _channels(values[y, x], is_color)
        best, distance = np.zeros(len(y), np.int32), np.full(len(y), np.inf)
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            row = np.clip(y + dy, 0, labels_HW.shape[0] - 1)
            column = np.clip(x + dx, 0, labels_HW.shape[1] - 1)
            neighbor = labels_HW[row, column]
            misfit = np.abs(_channels(neighbor, is_color) - own).sum(axis=0, dtype=np.float64)
            misfit[unknown[row, column]] = np.inf
            closer = misfit < distance
            best[closer], distance[closer] = neighbor[closer], misfit[closer]
        known = np.isfinite(distance)
        labels_HW[y[known], x[known]] = best[known]
        unknown[y[known], x[known]] = False
    labels_HW[unknown] = 0
    return labels_HW
