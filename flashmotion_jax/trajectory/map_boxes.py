"""The boxes of an object in maps, also where others, or the edge of the image, hide parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flashmotion_jax.trajectory.masks import bounding_box

#: Frames before an object disappears that its velocity is taken from.
_VELOCITY_FRAMES = 6


@dataclass(frozen=True, eq=False)
class _Axis:
    """What is seen of an object along x or y: an interval for each frame, in pixels.

    Attributes:
      length: Of the image.
      hidden: For each frame that shows only one stroke of an outline, where its opposite edge may
        be: see `_hidden_lines`.
      low_F: First edge of what is seen; NaN where nothing is.
      high_F: Second edge.
      low_slack_F: How far the object may reach beyond `low_F`: 0 where its edge is seen, infinity
        at the edge of the image.
      high_slack_F: How far it may reach beyond `high_F`.
      stroke_F: Position of the only stroke that is seen of an outline, which may be its first or
        its second edge; else NaN.
    """

    length: int
    hidden: dict[int, np.ndarray]
    low_F: np.ndarray
    high_F: np.ndarray
    low_slack_F: np.ndarray
    high_slack_F: np.ndarray
    stroke_F: np.ndarray


def boxes_of_label(
    labels: Sequence[np.ndarray],
    label: int,
    times_F: np.ndarray,
    radius_F: np.ndarray,
    covering: np.ndarray,
) -> np.ndarray:
    """Finds the box of an object on each frame.

    An edge that is hidden, behind another object or outside the image, follows from the opposite
    edge and the size of the object, which is interpolated between frames that show it. An object
    that is hidden completely keeps its size and moves on: to where it appears again, or with its
    last velocity. If it has left the image, it stays outside, and so it does before it first
    appears.

    Args:
      labels: Labels of the pixels of each frame, [H, W], 0 for the background.
      label: Of the object.
      times_F: Increasing frame numbers.
      radius_F: Radius of the strokes of outlines on each frame; -1: the frame shows masks.
      covering: Labels of the objects whose outlines are drawn over this one's.

    Returns:
      float64 [F, 4], (x0, y0, x1, y1) in pixels, with x0 <= x1 and y0 <= y1.
    """
    height, width = labels[0].shape
    seen = np.full((2, len(labels), 5), np.nan)
    hidden: tuple[dict[int, np.ndarray], ...] = ({}, {})
    for f, labels_HW in enumerate(labels):
        box = bounding_box(labels_HW == label)
        if box is not None:
            over = labels_HW > 0 if radius_F[f] < 0 else np.isin(labels_HW, covering)
            own, turned = labels_HW == label, (box[1], box[0], box[3], box[2])
            for k, view in enumerate([(own, over, box), (own.T, over.T, turned)]):
                seen[k, f], hidden[k][f] = _seen_interval(*view, int(radius_F[f]))
    axes = [_Axis((width, height)[k], hidden[k], *seen[k].T) for k in range(2)]
    intervals = [_complete(axis, times_F) for axis in axes]
    boxes_F4 = np.stack([intervals[0][0], intervals[1][0], intervals[0][1], intervals[1][1]], 1)
    is_cut_F = np.isinf([[a.low_slack_F, a.high_slack_F] for a in axes]).reshape(4, -1).max(axis=0)
    margin = int(radius_F.max()) + 2
    _move_on(boxes_F4, ~np.isnan(axes[0].low_F), is_cut_F, times_F, (width, height), margin)
    return boxes_F4


def _seen_interval(
    own_HW: np.ndarray, over_HW: np.ndarray, box: tuple[int, int, int, int], radius: int
) -> tuple[tuple[float, float, float, float, float], np.ndarray]:
    """The fields of an `_Axis`, along x, for one frame."""
    lines = np.zeros(0, int)
    x0, y0, x1, y1 = box
    width = own_HW.shape[1]
    mirrored = own_HW[:, ::-1], over_HW[:, ::-1], (width - x1, y0, width - x0, y1)
    sides = (mirrored, (own_HW, over_HW, box))
    slack = [_slack(own, over, seen, radius < 0) for own, over, seen in sides]
    if radius < 0:
        # Nothing hides both sides of an object: it is in front.
        if all(0 < beyond < np.inf for beyond in slack):
            slack = [0.0, 0.0]
        return (x0, x1, slack[0], slack[1], np.nan), lines
    if x1 - x0 <= 2 * radius + 1:
        lines = _hidden_lines(over_HW, box)
        if len(lines):
            center = (x0 + x1 - 1) / 2
            far = np.inf if y0 == 0 and y1 == own_HW.shape[0] else float(width)
            before = max(center - lines[0], 0.0) if lines[0] >= 0 else far
            after = max(lines[-1] - center, 0.0) if lines[-1] < width else far
            return (center, center, before, after, center), lines
    hidden = [0, 0]
    for k, (own, over, seen) in enumerate(sides):
        columns = _hidden_columns(own, over, seen, radius) if slack[k] > 0 else None
        if columns is not None:
            slack[k], hidden[k] = 0.0, columns
    low, high = x0 + radius - hidden[0], x1 - 1 - radius + hidden[1]
    return (min(low, high), max(low, high), slack[0], slack[1], np.nan), lines


def _hidden_lines(over_HW: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Where an outline of which only a stroke along y is seen may have its opposite edge.

    That edge, and those that join it with the ends of the stroke, are then outside the image, or
    under other objects.

    Returns:
      Columns in increasing order; -1 and the width for all outside the image.
    """
    x0, y0, x1, y1 = box
    height, width = over_HW.shape
    ends = [over_HW[y - 1 : y + 1].any(axis=0) for y in (y0, y1) if 0 < y < height]
    is_seen = ~np.logical_and.reduce(ends) if ends else np.zeros(width, bool)
    seen = np.flatnonzero(is_seen)
    start, stop = np.append(-2, seen[seen < x0])[-1] + 1, np.append(seen[seen >= x1], width + 1)[0]
    is_hidden = np.pad(over_HW[y0:y1].mean(axis=0) > 0.9, 1, constant_values=True)
    lines = np.flatnonzero(is_hidden) - 1
    return lines[(lines >= start) & (lines < stop) & ((lines < x0) | (lines >= x1))]


def _hidden_columns(
    own_HW: np.ndarray, over_HW: np.ndarray, box: tuple[int, int, int, int], radius: int
) -> int | None:
    """How many columns of the stroke along an outline's last edge others hide.

    Returns:
      None where none of the stroke, or not its inner border, is seen, or it leaves the image.
    """
    x0, y0, x1, y1 = box
    height, width = own_HW.shape
    stroke = 2 * radius + 1
    if x1 == width or x1 - x0 <= stroke:
        return None
    # Rows that the strokes along the other two edges do not reach.
    first, last = y0 + stroke * (y0 > 0), y1 - stroke * (y1 < height)
    is_beside_H = ~own_HW[:, x0 + stroke : x1 - stroke].any(axis=1)
    rows = first + np.flatnonzero((is_beside_H & own_HW[:, x1 - 1])[first:last])
    inwards = own_HW[rows, x1 - 1 - stroke : x1][:, ::-1]
    seen = inwards.argmin(axis=1)
    seen = seen[(seen > 0) & ~over_HW[rows, x1 - 1 - seen]]
    return stroke - int(seen.max()) if len(seen) else None


def _slack(
    own_HW: np.ndarray, over_HW: np.ndarray, box: tuple[int, int, int, int], is_mask: bool
) -> float:
    """How far an object that is seen in a box may reach beyond its last column."""
    _, y0, end, y1 = box
    height, width = own_HW.shape
    if end == width:
        return np.inf
    rows = np.flatnonzero(own_HW[:, end - 1])
    is_over = over_HW[rows, end:].mean(axis=0) > 0.5
    if not is_over[0]:
        return 0.0
    if is_mask:
        # What surrounds a corner of the object is behind it.
        inner = slice(max(end - 3, 0), end)
        beside = [over_HW[y, inner].mean() > 0.5 for y in (y0 - 1, y1) if 0 <= y < height]
        if any(beside):
            return 0.0
    return np.inf if is_over.all() else float(is_over.argmin())


def _complete(axis: _Axis, times_F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges of an object along an axis on every frame, [F] each; NaN where it is not seen."""
    low_F, high_F = axis.low_F.copy(), axis.high_F.copy()
    knows_low, knows_high = axis.low_slack_F == 0, axis.high_slack_F == 0
    knows_size = knows_low & knows_high
    if not knows_size.any():
        largest = np.nanargmax(high_F - low_F)
        knows_size[largest] = knows_low[largest] = True
    size_F = np.interp(times_F, times_F[knows_size], (high_F - low_F)[knows_size])
    center_F = np.where(knows_low, low_F + size_F / 2, high_F - size_F / 2)
    knows_place = knows_low | knows_high
    center_F = _interpolated(times_F, times_F[knows_place], center_F[knows_place])
    # The edge that is seen decides; where none is, the center on the frames around.
    low_F = np.where(knows_low, low_F, np.where(knows_high, high_F, center_F + size_F / 2) - size_F)
    high_F = np.where(knows_high, high_F, low_F + size_F)
    is_stroke = ~np.isnan(axis.stroke_F)
    for f in np.flatnonzero(is_stroke).tolist():
        stroke, size = axis.stroke_F[f], size_F[f]
        # It is the edge whose opposite one may be hidden, else the one that is nearer.
        opposite = np.clip([stroke + size, stroke - size], -1, axis.length)
        apart = np.abs(axis.hidden[f][:, None] - opposite).min(axis=0)
        is_low, is_high = apart <= 2 + size / 8
        if is_low == is_high:
            is_low = abs(stroke - low_F[f]) < abs(stroke - high_F[f])
        low_F[f], high_F[f] = (stroke, stroke + size) if is_low else (stroke - size, stroke)
    others = ~is_stroke
    slack = (axis.low_slack_F, axis.high_slack_F)
    low_F[others] = np.clip(low_F, axis.low_F - slack[0], axis.low_F)[others]
    high_F[others] = np.clip(high_F, axis.high_F, axis.high_F + slack[1])[others]
    low_F[np.isnan(axis.low_F)] = high_F[np.isnan(axis.low_F)] = np.nan
    return low_F, high_F


def _interpolated(times_F: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolates linearly, and extrapolates with the velocity over the nearest frames."""
    result = np.interp(times_F, known, values)
    if len(known) > 1:
        reach = min(_VELOCITY_FRAMES, len(known)) - 1
        after, before = times_F > known[-1], times_F < known[0]
        for outside, near, far in ((after, -1, -1 - reach), (before, 0, reach)):
            velocity = (values[near] - values[far]) / (known[near] - known[far])
            result[outside] = values[near] + velocity * (times_F[outside] - known[near])
    return result


def _move_on(
    boxes_F4: np.ndarray,
    is_seen_F: np.ndarray,
    is_cut_F: np.ndarray,
    times_F: np.ndarray,
    size: tuple[int, int],
    margin: int,
) -> None:
    """Fills in the boxes of frames on which an object is not seen, in place."""
    seen = np.flatnonzero(is_seen_F)
    boxes_F4[: seen[0]] = boxes_F4[seen[0]]
    boxes_F4[: seen[0]] += _outwards(boxes_F4[seen[0]], boxes_F4[: seen[0]], size, margin)
    for k, last in enumerate(seen):
        end = seen[k + 1] if k + 1 < len(seen) else len(times_F)
        hidden = np.arange(last + 1, end)
        if not len(hidden):
            continue
        elapsed = (times_F[hidden] - times_F[last])[:, None]
        if end < len(times_F) and not is_cut_F[last]:
            part = elapsed / (times_F[end] - times_F[last])
            boxes_F4[hidden] = boxes_F4[last] + part * (boxes_F4[end] - boxes_F4[last])
            continue
        first = seen[max(k + 1 - _VELOCITY_FRAMES, 0)]
        center = (boxes_F4[:, :2] + boxes_F4[:, 2:]) / 2
        velocity = (center[last] - center[first]) / max(times_F[last] - times_F[first], 1)
        # More than five images away, it no longer matters where an object is.
        shift = np.clip(np.tile(elapsed * velocity, 2), -5 * max(size), 5 * max(size))
        boxes_F4[hidden] = boxes_F4[last] + shift
        if is_cut_F[last]:
            boxes_F4[hidden] += _outwards(boxes_F4[last], boxes_F4[hidden], size, margin)


def _outwards(
    last_4: np.ndarray, boxes_F4: np.ndarray, size: tuple[int, int], margin: int
) -> np.ndarray:
    """Shifts [F, 4] that keep boxes outside the image, on the side that is nearest to the last."""
    ways = [last_4[2], last_4[3], size[0] - last_4[0], size[1] - last_4[1]]
    side = int(np.argmin(ways))
    shifts = np.zeros_like(boxes_F4)
    axis = side % 2
    if side < 2:
        shift = np.minimum(0, -margin - boxes_F4[:, 2 + axis])
    else:
        shift = np.maximum(0, size[axis] + margin - boxes_F4[:, axis])
    shifts[:, axis] = shifts[:, 2 + axis] = shift
    return shifts
