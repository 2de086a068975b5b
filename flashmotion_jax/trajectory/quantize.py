"""Restores the exact colors of lossy map videos, and with them the object of each pixel."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.palette import palette_color
from flashmotion_jax.trajectory.patches import drop_patches, neighbors

#: Largest difference within an object's color in a lossy frame, in some channel.
_TOLERANCE = 7
#: Largest difference between a color and the default one that it stands for: in exact frames, which
#: rounding and the palettes of GIFs change; in lossy frames; in lossy frames where every color is
#: near one. DAVIS's fourth color, which is another, is 12 away from the nearest.
_SNAP_EXACT, _SNAP_LOSSY, _SNAP_ALL = 4, 7, 11
_DARK = 24
_MAX_COLORS = 8000
#: Ids whose default colors are far enough apart for a frame to be taken as exact, and the largest
#: number of colors in exact frames.
_DISTINCT_IDS = 300

# Values of the lookup table: flags, and a label above them.
_KNOWN, _MIXED, _INEXACT, _LABEL_SHIFT = 1, 2, 4, 3


def label_maps(frames: Iterable[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Finds the object of each pixel of a map video.

    Colors are taken from frame 0, see `find_colors`; if all frames are exact, those of objects that
    are first seen on later frames are added.

    Args:
      frames: uint8 [H, W, 3] each; iterated up to three times.

    Returns:
      Labels of each frame, unsigned [H, W], 0 for the background and 1 + k for color k; colors,
      uint8 [C, 3].

    Raises:
      UserError: Frame 0 shows no object.
    """
    seen_C3, starts_exact = _seen_colors(next(iter(frames)))
    if not len(seen_C3):
        raise UserError("frame 0 is black; the first frame of a map video must show colored masks")
    all_C3 = _with_later_colors(frames, seen_C3) if starts_exact else None
    is_exact = all_C3 is not None
    seen_C3 = seen_C3 if all_C3 is None else all_C3
    labels = label_frames(frames, seen_C3, is_exact)
    colors_C3, merged_C = _distinct(_named(seen_C3, starts_exact))
    if len(colors_C3) < len(seen_C3):
        merged = np.concatenate([[0], 1 + merged_C]).astype(labels[0].dtype)
        labels = [merged[labels_HW] for labels_HW in labels]
    return labels, colors_C3


def exact_maps(frames: np.ndarray) -> np.ndarray:
    """Restores the exact colors of a lossy map video, uint8 [F, H, W, 3]; others are unchanged.

    Raises:
      UserError: Frame 0 shows no object.
    """
    seen_C3, is_exact = _seen_colors(frames[0])
    if is_exact and len(seen_C3) and _with_later_colors(frames, seen_C3) is not None:
        return frames
    labels, colors_C3 = label_maps(frames)
    codes = np.concatenate([np.zeros(1, np.uint32), _packed(colors_C3)])
    num_frames, size = len(frames), frames[0, ..., 0].size
    restored = np.zeros((num_frames, size + -size % 8, 3), np.uint8)
    for labels_HW, restored_P3 in zip(labels, restored, strict=True):
        blocks_B8 = _padded(labels_HW.ravel(), 8).reshape(-1, 8)
        filled = np.flatnonzero(blocks_B8.view(np.uint64).any(axis=1))
        colors_B84 = codes[blocks_B8[filled]].view(np.uint8).reshape(-1, 8, 4)
        restored_P3.reshape(-1, 8, 3)[filled] = colors_B84[..., :3]
    return restored[:, :size].reshape(frames.shape)


def find_colors(frame_HW3: np.ndarray) -> np.ndarray:
    """Finds the objects' colors on frame 0, the largest area first.

    In a lossy frame only flat areas count, because edges are mixtures, and a color close to a
    default one becomes that color; other colors, such as those of DAVIS, stay. Colors may also be
    shifted all alike, where a video was written with one conversion between RGB and YUV and read
    with another.

    Args:
      frame_HW3: uint8, frame 0 of the maps.

    Returns:
      uint8 [C, 3], empty for a black frame.
    """
    return _distinct(_named(*_seen_colors(frame_HW3)))[0]


def label_frames(
    frames: Iterable[np.ndarray], colors_C3: np.ndarray, is_exact: bool = False
) -> list[np.ndarray]:
    """Assigns each pixel to an object.

    Pixels close to a color get its label. Mixtures next to them get the label of the neighbor if
    they are closer to its color than to black. Then tiny patches are removed. Frames with exact
    colors only are labeled directly.

    Args:
      frames: uint8 [H, W, 3] each.
      colors_C3: uint8, the colors in the frames.
      is_exact: The frames are not lossy: other colors are those of objects that are not on frame 0,
        and get label 0.

    Returns:
      Unsigned [H, W] for each frame: 0 for the background, 1 + index of the color for objects.
    """
    table = np.concatenate([np.zeros((1, 3)), colors_C3]).astype(np.int16)
    # Which label a color has is found once for each color that occurs; black has label 0.
    lookup = np.zeros(1 << 24, np.uint16)
    lookup[0] = _KNOWN
    labels = []
    for frame_HW3 in frames:
        height, width = frame_HW3.shape[:2]
        size = height * width
        labels_P = np.zeros(size + -size % 8, np.uint8 if len(table) <= 256 else np.uint16)
        filled, codes_B8 = _colored_blocks(frame_HW3)
        found_B8 = lookup[codes_B8]
        if not found_B8.all():
            new = np.unique(codes_B8[found_B8 == 0])
            lookup[new] = _looked_up(_unpacked(new), table, is_exact)
            found_B8 = lookup[codes_B8]
        labels_P.reshape(-1, 8)[filled] = found_B8 >> _LABEL_SHIFT
        labels_HW = labels_P[:size].reshape(height, width)
        if not is_exact and (found_B8 & _INEXACT).any():
            mixed = np.flatnonzero((found_B8 & _MIXED).ravel() != 0)
            brightness = _unpacked(codes_B8.ravel()[mixed]).max(axis=-1, initial=0)
            at = 8 * filled[mixed // 8] + mixed % 8
            _clean(labels_HW, at, brightness, table.max(axis=-1))
        labels.append(labels_HW)
    return labels


def _clean(
    labels_HW: np.ndarray, mixed: np.ndarray, brightness: np.ndarray, table_brightness: np.ndarray
) -> None:
    """Gives mixtures to objects next to them, and removes tiny patches, in place."""
    neighbor = neighbors(labels_HW, mixed).max(axis=0)
    is_object = 2 * brightness > table_brightness[neighbor]
    labels_HW.reshape(-1)[mixed] = np.where(is_object, neighbor, 0)
    drop_patches(labels_HW, _least_area(labels_HW.shape))


def _colored_blocks(frame_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of 8 successive pixels that are not all black, and their packed colors [B, 8].

    Maps are mostly black, which is fastest to skip as 64-bit words, three a block.
    """
    flat = _padded(frame_HW3.reshape(-1), 24)
    words = flat.view(np.uint64).reshape(-1, 3)
    filled = np.flatnonzero((words[:, 0] | words[:, 1] | words[:, 2]) != 0)
    return filled, _packed(flat.reshape(-1, 8, 3)[filled])


def _padded(flat: np.ndarray, multiple: int) -> np.ndarray:
    """A contiguous array with zeros up to the next multiple; no copy if it is one."""
    missing = -flat.size % multiple
    return np.pad(flat, (0, missing)) if missing else np.ascontiguousarray(flat)


def _packed(pixels: np.ndarray) -> np.ndarray:
    """Pixels [..., 3] as one number each, uint32 [...], 0xBBGGRR."""
    padded = np.zeros((*pixels.shape[:-1], 4), np.uint8)
    padded[..., :3] = pixels
    return padded.view("<u4")[..., 0]


def _unpacked(codes_P: np.ndarray) -> np.ndarray:
    """Packed pixels as colors, int16 [P, 3]."""
    return np.stack([codes_P & 255, codes_P >> 8 & 255, codes_P >> 16], axis=-1).astype(np.int16)


def _looked_up(colors_P3: np.ndarray, table: np.ndarray, is_exact: bool) -> np.ndarray:
    """The values of the lookup table for colors, uint16 [P]."""
    apart = np.abs(table[:, None] - table).max(axis=-1)
    most = _SNAP_EXACT if is_exact else 2 * _DARK
    reach = min(most, int(apart[apart > 0].min(initial=255)) // 2)
    nearest, distance = np.zeros(len(colors_P3), np.uint16), colors_P3.max(axis=-1)
    for label, color in enumerate(table[1:], start=1):
        to_color = np.abs(colors_P3 - color).max(axis=-1)
        closer = to_color < distance
        nearest[closer], distance[closer] = label, to_color[closer]
    is_mixed = (distance > reach) & (colors_P3.max(axis=-1) > _DARK)
    values = np.where(distance <= reach, nearest, 0) << _LABEL_SHIFT
    return (values | _KNOWN | is_mixed * _MIXED | (distance > 0) * _INEXACT).astype(np.uint16)


def _least_area(shape: tuple[int, ...]) -> int:
    """Number of pixels below which a patch of color is taken for compression noise."""
    return max(4, shape[0] * shape[1] // 10_000)


def _seen_colors(frame_HW3: np.ndarray) -> tuple[np.ndarray, bool]:
    """The objects' colors as they are in a frame, uint8 [C, 3], and whether it is exact."""
    codes, counts = np.unique(_colored_blocks(frame_HW3)[1], return_counts=True)
    counts, codes = counts[codes > 0], codes[codes > 0]
    if len(codes) <= _MAX_COLORS:
        defaults = np.array([palette_color(k) for k in range(1, _DISTINCT_IDS)], np.uint8)
        known = np.union1d(_packed(defaults[None]), _flat_codes(frame_HW3, 0))
        # An object that others hide may be too narrow to be flat.
        if _are_exact(np.setdiff1d(codes, known), len(codes)):
            return _unpacked(codes[np.argsort(-counts, kind="stable")]).astype(np.uint8), True
    return _clusters(frame_HW3), False


def _are_exact(codes: np.ndarray, count: int) -> bool:
    """Whether colors that are not known to be exact may be, among `count` colors in all.

    Lossy compression, and resizing, makes dark colors beside edges, or very many.
    """
    return not len(codes) or (
        count <= _DISTINCT_IDS and bool((_unpacked(codes).max(axis=-1) > _DARK).all())
    )


def _with_later_colors(frames: Iterable[np.ndarray], seen_C3: np.ndarray) -> np.ndarray | None:
    """The colors of frame 0, followed by those that are only on other frames; None: are lossy.

    Outlines are too thin for their shape to tell whether a frame is exact.
    """
    codes_C = _packed(seen_C3)
    is_known = np.zeros(1 << 24, bool)
    is_known[0] = is_known[codes_C] = True
    for frame_HW3 in islice(frames, 1, None):
        codes_B8 = _colored_blocks(frame_HW3)[1]
        new = np.unique(codes_B8[~is_known[codes_B8]])
        is_known[new] = True
        codes_C = np.concatenate([codes_C, new])
        if not _are_exact(new, len(codes_C)):
            return None
    return _unpacked(codes_C).astype(np.uint8)


def _flat_codes(frame_HW3: np.ndarray, tolerance: int) -> np.ndarray:
    """The packed colors of pixels that differ little from the four next to them."""
    pixels = frame_HW3.astype(np.int16)
    step_y = np.abs(np.diff(pixels, axis=0)).max(axis=-1) <= tolerance
    step_x = np.abs(np.diff(pixels, axis=1)).max(axis=-1) <= tolerance
    flat = (step_y[:-1] & step_y[1:])[:, 1:-1] & (step_x[:, :-1] & step_x[:, 1:])[1:-1]
    return _packed(frame_HW3)[1:-1, 1:-1][flat]


def _clusters(frame_HW3: np.ndarray) -> np.ndarray:
    """The colors of the flat areas of a lossy frame, uint8 [C, 3], the largest area first."""
    codes, counts = np.unique(_flat_codes(frame_HW3, _TOLERANCE), return_counts=True)
    rest_P3 = _unpacked(codes)
    bright = rest_P3.max(axis=-1) > _DARK
    rest_P3, counts = rest_P3[bright], counts[bright]
    least = _least_area(frame_HW3.shape)
    colors: list[np.ndarray] = []
    while counts.sum() >= least:
        distance = np.abs(rest_P3 - rest_P3[counts.argmax()]).max(axis=-1)
        near = distance <= _TOLERANCE
        if counts[near].sum() < least:
            break
        colors.append(np.median(np.repeat(rest_P3[near], counts[near], axis=0), axis=0))
        rest_P3, counts = rest_P3[distance > 2 * _TOLERANCE], counts[distance > 2 * _TOLERANCE]
    return np.array(colors, np.uint8).reshape(-1, 3)


def _named(seen_C3: np.ndarray, is_exact: bool) -> np.ndarray:
    """Colors with the default ones in the place of those near them, uint8 [C, 3].

    Default colors for ids above 21 are considered only where there are more objects than that.
    """
    if not len(seen_C3):
        return seen_C3
    defaults = np.array([palette_color(k) for k in range(1, max(21, len(seen_C3)) + 1)])
    if is_exact:
        named = np.array(seen_C3)
        distances = np.abs(defaults - seen_C3[:, None].astype(int)).max(axis=-1)
        # Only one color becomes a default one, because all of them are different objects.
        closest = distances.argmin(axis=0)
        for k, c in enumerate(closest):
            if distances[c, k] <= _SNAP_EXACT and distances[c].argmin() == k:
                named[c] = defaults[k]
        return named
    candidates = [_nearest(shift(seen_C3.astype(float)), defaults) for shift in _SHIFTS]
    costs = [np.minimum(distance, 2 * _SNAP_ALL).mean() for _, distance in candidates]
    nearest, distance = candidates[int(np.argmin(costs))]
    reach = _SNAP_ALL if distance.max() <= _SNAP_ALL else _SNAP_LOSSY
    named = np.where((distance <= reach)[:, None], defaults[nearest], seen_C3).astype(np.uint8)
    # What is like a larger color, but no default one, is a bad part of that object.
    for c in np.flatnonzero(distance > reach):
        apart = np.abs(seen_C3[:c].astype(int) - seen_C3[c]).max(axis=-1)
        if apart.min(initial=255) <= 3 * _TOLERANCE:
            named[c] = named[apart.argmin()]
    return named


def _nearest(colors_C3: np.ndarray, defaults: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = np.abs(defaults - colors_C3[:, None]).max(axis=-1)
    return distances.argmin(axis=1), distances.min(axis=1)


def _distinct(colors_C3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The colors without repetitions, in their order, and the place of each color among them."""
    unique, first, place = np.unique(colors_C3, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return unique[order].reshape(-1, 3), np.argsort(order)[place.ravel()]


def _to_yuv(red: float, blue: float) -> np.ndarray:
    """The matrix from RGB to YUV of a standard with these weights of red and blue."""
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, ([0, 0, 1] - luma) / (1 - blue), ([1, 0, 0] - luma) / (1 - red)])


_BT601, _BT709 = _to_yuv(0.299, 0.114), _to_yuv(0.2126, 0.0722)
#: What undoes a conversion that was read as another: BT.601 as BT.709 and the reverse, and full
#: range as limited range and the reverse.
_SHIFTS = (
    lambda colors: colors,
    lambda colors: colors @ (np.linalg.inv(_BT709) @ _BT601).T,
    lambda colors: colors @ (np.linalg.inv(_BT601) @ _BT709).T,
    lambda colors: colors * 219 / 255 + 16,
    lambda colors: (colors - 16) * 255 / 219,
)
