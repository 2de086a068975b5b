"""Wan-Move's tracks: an npy of points and an npy of visibility (also MoveBench's)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.tracks import Tracks


def read_wan_move(path: str | Path, visibility_path: str | Path | None = None) -> Tracks:
    """Reads Wan-Move tracks.

    Args:
      path: `.npy`, [F, N, 2] or [1, F, N, 2], (x, y) in pixels.
      visibility_path: `.npy`, [F, N] or [1, F, N]; None: every point is always visible.

    Raises:
      UserError: A file is missing, is no npy of numbers, or the shapes do not fit.
    """
    points = _read_npy(path)
    if points.ndim == 4 and len(points) == 1:
        points = points[0]
    if visibility_path is None:
        return Tracks(points, np.ones(points.shape[:2], bool))
    visible = _read_npy(visibility_path)
    if visible.ndim == 3 and len(visible) == 1:
        visible = visible[0]
    return Tracks(points, visible > 0.5)


def write_wan_move(tracks: Tracks, path: str | Path, visibility_path: str | Path) -> None:
    """Writes float32 [1, F, N, 2] and bool [1, F, N], as MoveBench stores them."""
    for target, array in (
        (path, tracks.points_FN2[None].astype(np.float32)),
        (visibility_path, tracks.visible_FN[None]),
    ):
        with replacing(target) as scratch, scratch.open("wb") as file:
            np.save(file, array)


def _read_npy(path: str | Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float64)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise UserError(f"{path} is not an npy file of numbers: {error}") from error
