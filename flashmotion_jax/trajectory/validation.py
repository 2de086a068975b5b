"""Validation of trajectory files: finds all problems at once, in the decoded JSON.

Each problem names its place, what was expected, and how to fix it.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import check_image_size, check_num_boxes
from flashmotion_jax.trajectory.keyframes import EASINGS
from flashmotion_jax.trajectory.masks import read_mask_png
from flashmotion_jax.trajectory.palette import palette_color

VERSION = 1
"""Version of the file format."""

MAX_PROBLEMS = 10
"""Problems that are reported of a file."""

MAX_ID = 9_999
"""The largest id of an object."""

BOX_LIMITS = (-10, 11)
"""The range of the edges of boxes and of points, as fractions of the canvas."""

OLD_NAMES = {"colour": "color"}
"""Key of an object in files written until December 2026 -> its present name."""


@dataclass(frozen=True)
class Field:
    """The values that a key accepts."""

    accepts: Callable[[Any], bool]
    expected: str
    required: bool = True


def _is_whole(value: Any, low: int, high: int) -> bool:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_whole and bool(low <= value <= high)


def _is_number(value: Any, low: float, high: float) -> bool:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    # NaN fails both comparisons.
    return is_number and bool(low <= value <= high)


def _is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    inside = all(_is_number(edge, *BOX_LIMITS) for edge in value)
    return inside and value[0] <= value[2] and value[1] <= value[3]


def _is_point(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and all(_is_number(part, *BOX_LIMITS) for part in value)


def _is_color(value: Any) -> bool:
    is_hex = isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value)
    return value is None or (bool(is_hex) and value != "#000000")


def _is_increasing(value: Any) -> bool:
    whole = isinstance(value, list) and all(_is_whole(frame, 0, 9_999) for frame in value)
    return whole and all(a < b for a, b in pairwise(value))


_SIDE = Field(lambda v: _is_whole(v, 1, 16_384), "pixels, a whole number from 1 to 16384")
CANVAS = {"width": _SIDE, "height": _SIDE}
MASK = {
    "size": Field(
        lambda v: isinstance(v, list) and len(v) == 2 and all(map(_SIDE.accepts, v)),
        "[height, width] of the canvas, in pixels",
    ),
    "counts": Field(
        lambda v: isinstance(v, list) and all(_is_whole(run, 0, 16_384**2) for run in v),
        "a list of run lengths, whole numbers from 0 (uncompressed COCO)",
    ),
}
KEYFRAME = {
    "frame": Field(lambda v: _is_whole(v, 0, 9_999), "a whole number from 0"),
    "box": Field(
        _is_box,
        "[x0, y0, x1, y1] with x0 <= x1 and y0 <= y1, as fractions of the canvas from -10 to 11; "
        "divide pixels by the canvas's width and height",
    ),
    "ease": Field(
        lambda v: isinstance(v, str) and v in EASINGS, f"one of {', '.join(EASINGS)}", False
    ),
}
OBJECT = {
    "id": Field(lambda v: _is_whole(v, 1, MAX_ID), "a whole number from 1"),
    "name": Field(lambda v: isinstance(v, str), "text", False),
    "color": Field(_is_color, "'#rrggbb' but not black, or null for MagicData's", False),
    "mask": Field(
        lambda v: v is None or isinstance(v, str | dict),
        'a PNG in the folder of the file, {"size", "counts"}, or null for the filled box',
        False,
    ),
    "keyframes": Field(
        lambda v: isinstance(v, list) and v != [], "a list of at least one, or `points`", False
    ),
    "points": Field(
        lambda v: isinstance(v, list) and all(one is None or _is_point(one) for one in v),
        "[x, y] for each frame, as fractions of the canvas from -10 to 11, or null where it is "
        "hidden",
        False,
    ),
}
TRAJECTORY = {
    "version": Field(lambda v: _is_whole(v, VERSION, VERSION), f"{VERSION}"),
    "canvas": Field(lambda v: isinstance(v, dict), '{"width", "height"}'),
    "num_frames": Field(lambda v: _is_whole(v, 1, 10_000), "a whole number from 1 to 10000"),
    "fps": Field(lambda v: _is_number(v, 1e-3, 1e3), "frames per second, from 0.001 to 1000"),
    "objects": Field(lambda v: isinstance(v, list), "a list"),
    "sparse_frames": Field(
        lambda v: v is None or _is_increasing(v),
        "increasing frame numbers on which boxes are drawn, or null for all",
        False,
    ),
}


def find_problems(data: Any, folder: Path | None = None) -> list[str]:
    """Checks the data of a trajectory file.

    Args:
      data: The decoded JSON.
      folder: Folder of the PNG files of masks; None: masks must be run lengths.

    Returns:
      One line per problem, such as `objects[1].keyframes[0].box: [0.5, 0], expected ...`; the first
      `MAX_PROBLEMS`.
    """
    return list(islice(_trajectory_problems(data, folder), MAX_PROBLEMS))


def with_current_names(data: Any) -> Any:
    """The data of a trajectory file, with the keys of `OLD_NAMES` renamed."""
    objects = data.get("objects") if isinstance(data, dict) else None
    if not isinstance(objects, list):
        return data
    return {**data, "objects": [_renamed(item) for item in objects]}


def _renamed(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    # If both keys are there, the old one stays and is reported as unknown.
    names = {old: new for old, new in OLD_NAMES.items() if new not in item}
    return {names.get(key, key): value for key, value in item.items()}


def _field_problems(place: str, data: Any, fields: dict[str, Field]) -> Iterator[str]:
    if not isinstance(data, dict):
        yield f"{place or 'file'}: {reprlib.repr(data)}, expected {{{', '.join(fields)}}}"
        return
    prefix = f"{place}." if place else ""
    for key, value in data.items():
        if key not in fields:
            nearest = get_close_matches(key[:40], fields, n=1, cutoff=0)[0]
            yield f"{prefix}{key:.80}: unknown key, nearest is {nearest!r}; rename or remove it"
        elif not fields[key].accepts(value):
            yield f"{prefix}{key}: {reprlib.repr(value)}, expected {fields[key].expected}"
    for key, field in fields.items():
        if field.required and key not in data:
            yield f"{prefix}{key}: missing, expected {field.expected}"


def _valid(data: Any, fields: dict[str, Field], key: str) -> Any:
    """The value of a key, or None if it is missing or wrong, which was reported before."""
    value = data.get(key) if isinstance(data, dict) else None
    return value if fields[key].accepts(value) else None


def _trajectory_problems(data: Any, folder: Path | None) -> Iterator[str]:
    yield from _field_problems("", data, TRAJECTORY)
    canvas = _valid(data, TRAJECTORY, "canvas")
    if canvas is not None:
        yield from _field_problems("canvas", canvas, CANVAS)
    size = [_valid(canvas, CANVAS, "height"), _valid(canvas, CANVAS, "width")]
    last = (_valid(data, TRAJECTORY, "num_frames") or 10_000) - 1
    for frame in _valid(data, TRAJECTORY, "sparse_frames") or []:
        if frame > last:
            yield f"sparse_frames: {frame}, expected at most {last}; raise num_frames or remove it"
    objects = _valid(data, TRAJECTORY, "objects") or []
    try:
        check_num_boxes(len(objects), last + 1, "objects")
    except UserError as error:
        yield str(error)
        return
    for index, item in enumerate(objects):
        place = f"objects[{index}]"
        yield from _field_problems(place, item, OBJECT)
        yield from _mask_problems(f"{place}.mask", _valid(item, OBJECT, "mask"), size, folder)
        keyframes = _valid(item, OBJECT, "keyframes") or []
        yield from _keyframe_problems(f"{place}.keyframes", keyframes, last)
        if isinstance(item, dict):
            if ("keyframes" in item) == ("points" in item):
                yield f"{place}: expected keyframes, which have boxes, or points, and not both"
            yield from _point_problems(f"{place}.points", _valid(item, OBJECT, "points"), last)
    yield from _repeated_problems(objects)


def _keyframe_problems(place: str, keyframes: list[Any], last: int) -> Iterator[str]:
    previous = -1
    for index, item in enumerate(keyframes):
        yield from _field_problems(f"{place}[{index}]", item, KEYFRAME)
        frame = _valid(item, KEYFRAME, "frame")
        if frame is None:
            continue
        if frame > last:
            yield f"{place}[{index}].frame: {frame}, expected at most {last} (num_frames - 1)"
        if frame <= previous:
            yield (
                f"{place}[{index}].frame: {frame}, expected more than {previous}, the one before; "
                "sort keyframes by frame, at most one per frame"
            )
        previous = frame


def _point_problems(place: str, points: list[Any] | None, last: int) -> Iterator[str]:
    if points is None:
        return
    if len(points) != last + 1:
        yield f"{place}: {len(points)}, expected {last + 1}, one a frame; null where it is hidden"
    elif not any(point and all(0 <= part <= 1 for part in point) for point in points):
        yield f"{place}: outside the canvas on every frame; divide pixels by its width and height"


def _mask_problems(place: str, mask: Any, size: list[Any], folder: Path | None) -> Iterator[str]:
    if mask is None:
        return
    if isinstance(mask, str):
        if folder is None:
            yield f"{place}: {mask!r:.80}, expected run lengths; a PNG needs a file next to it"
            return
        try:
            picture = read_mask_png(folder, mask)
        except UserError as error:
            yield f"{place}: {error}"
            return
        mask = {"size": list(picture.size), "counts": list(picture.counts)}
    yield from _field_problems(place, mask, MASK)
    if mask_size := _valid(mask, MASK, "size"):
        try:
            check_image_size(mask_size[0], mask_size[1], f"{place}.size")
        except UserError as error:
            yield str(error)
            return
    mask_size, counts = _valid(mask, MASK, "size"), _valid(mask, MASK, "counts")
    if mask_size and counts is not None and sum(counts) != math.prod(mask_size):
        expected = f"{math.prod(mask_size)} = height * width of its size"
        yield f"{place}.counts: sum {sum(counts)}, expected {expected}"
    elif counts is not None and not any(counts[1::2]):
        yield f"{place}: empty; expected at least one pixel inside, or null for the filled box"
    if mask_size and None not in size and mask_size != size:
        yield (
            f"{place}: [height, width] {mask_size}, expected the canvas's {size}; resize the mask "
            "or set the canvas to the size of the image"
        )


def _repeated_problems(objects: list[Any]) -> Iterator[str]:
    ids: dict[int, int] = {}
    colors: dict[str, int] = {}
    for index, item in enumerate(objects):
        object_id = _valid(item, OBJECT, "id")
        if object_id is None:
            continue
        if (first := ids.setdefault(object_id, index)) != index:
            yield f"objects[{index}].id: {object_id}, expected another than objects[{first}]'s"
            continue
        color = _valid(item, OBJECT, "color") or "#{:02x}{:02x}{:02x}".format(
            *palette_color(object_id)
        )
        if (first := colors.setdefault(color.lower(), index)) != index:
            yield (
                f"objects[{index}].color: {color}, expected another than objects[{first}]'s; "
                "give each object a color of its own, or null for that of its id"
            )
