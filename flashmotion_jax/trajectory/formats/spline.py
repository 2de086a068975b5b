"""JSON of ComfyUI splines (KJNodes' SplineEditor, the Wan nodes): a list of points per track."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json_documents, read_json_text
from flashmotion_jax.trajectory.formats.base import (
    ExportRequest,
    Format,
    Imported,
    ImportOptions,
    holds_json_list,
    imported_tracks,
    json_file,
)
from flashmotion_jax.trajectory.tracks import Tracks, tracks_from_boxes

_EXPECTED = 'expected [[{"x": 10, "y": 20}, ...], ...], in pixels, one point per frame'
_MAX_DEPTH = 16
_NAME = "spline coordinates"


def read_spline(source: str | Path) -> Tracks:
    """Reads spline coordinates; a point is invisible after the end of its list.

    Args:
      source: The JSON text from the node's output, or the path of a file with it. Lists of tracks
        may be nested, quoted again, have single quotes, and follow each other, as editors append
        them.

    Raises:
      UserError: The file is missing, or the text has another content.
    """
    tracks = list(_tracks(_text(source)))
    if not tracks:
        raise UserError(f"spline coordinates: no track in them, {_EXPECTED}")
    points = [_points(n, track) for n, track in enumerate(tracks)]
    length = max(map(len, points))
    points_FN2 = np.full((length, len(points), 2), np.nan)
    for n, track in enumerate(points):
        points_FN2[: len(track), n] = track
    return Tracks(points_FN2, np.all(np.isfinite(points_FN2), axis=-1))


def write_spline(tracks: Tracks, path: str | Path) -> None:
    """Writes spline coordinates; a track ends where its point becomes invisible.

    Raises:
      UserError: A point is invisible on frame 0, which this format cannot express.
    """
    if not tracks.visible_FN[0].all():
        first = int(tracks.visible_FN[0].argmin())
        raise UserError(f"track {first} is not visible on frame 0: remove it or move it inside")
    lists = []
    for n in range(tracks.points_FN2.shape[1]):
        seen = np.logical_and.accumulate(tracks.visible_FN[:, n])
        lists.append([{"x": x, "y": y} for x, y in tracks.points_FN2[seen, n].tolist()])
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(lists), encoding="utf-8")


def _text(source: str | Path) -> str:
    if isinstance(source, str) and source.lstrip().startswith(("[", '"')):
        return source
    return read_json_text(Path(source), _EXPECTED)


def _tracks(value: Any, depth: int = 0) -> Iterator[list[Any]]:
    """Yields the tracks, which are lists of anything but lists and text, in order."""
    if depth > _MAX_DEPTH:
        raise UserError(f"spline coordinates are nested more than {_MAX_DEPTH} deep; {_EXPECTED}")
    if isinstance(value, str):
        documents = parse_json_documents(value.replace("'", '"'), _NAME, _EXPECTED)
        for document in documents:
            yield from _tracks(document, depth + 1)
    elif value == [] and depth <= 1:  # a document without tracks, not an empty track
        return
    elif isinstance(value, list) and value and all(isinstance(one, list | str) for one in value):
        for one in value:
            yield from _tracks(one, depth + 1)
    elif isinstance(value, list):
        yield value
    else:
        raise UserError(f"spline coordinates: {reprlib.repr(value)}; {_EXPECTED}")


def _points(n: int, track: Any) -> np.ndarray:
    try:
        points = np.array([[point["x"], point["y"]] for point in track], np.float64)
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"spline track {n}: {error!r}; {_EXPECTED}") from error
    if not points.size or not np.isfinite(points).all():
        raise UserError(f"spline track {n} is empty or not finite; {_EXPECTED}")
    return points


def _recognizes(path: Path) -> bool:
    file = json_file(path)
    return file is not None and holds_json_list(file)


def _read(path: Path, options: ImportOptions) -> Imported:
    return imported_tracks(read_spline(json_file(path) or path), options)


def _write(request: ExportRequest, folder: Path) -> Path:
    file = folder / f"{request.stem}-spline.json"
    write_spline(tracks_from_boxes(request.trajectory), file)
    return file


SPLINE = Format(
    name="spline",
    title="ComfyUI splines (KJNodes)",
    suffixes=(".json",),
    limits="sizes of boxes, masks, names and objects that enter later",
    recognizes=_recognizes,
    read=_read,
    write=_write,
)
