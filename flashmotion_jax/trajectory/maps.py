"""Trajectories in any form to maps of the model's size and length."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from flashmotion_jax.config import MapKind, Resize, SamplingConfig
from flashmotion_jax.media.geometry import Fit, fit_frames
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import check_video_size
from flashmotion_jax.trajectory.formats import ImportOptions, find_format, read_trajectory
from flashmotion_jax.trajectory.render import render
from flashmotion_jax.trajectory.schema import Canvas, Trajectory


def load_maps(
    source: Trajectory | str | Path | np.ndarray,
    *,
    num_frames: int,
    height: int,
    width: int,
    map_kind: MapKind = "box",
    canvas: Canvas | None = None,
    image: np.ndarray | None = None,
    resize: Resize = "crop",
    point_sigma: float = SamplingConfig.point_sigma,
) -> np.ndarray:
    """Loads or renders trajectory maps.

    Args:
      source: A trajectory; the path of one in any format of `trajectory.formats`; or maps, uint8
        `[F, H, W, 3]`. Maps of a lossy video get their exact colors back.
      num_frames: Number of frames to return. The motion of a trajectory is stretched to it; maps
        are resampled to the nearest frame, and their frame 0, the masks, is never repeated.
      height: Height to return, in pixels.
      width: Width to return, in pixels.
      map_kind: What to render of a trajectory; maps are taken as they are.
      canvas: The image that point tracks are in pixels of; None: `width` x `height`.
      image: The first frame, uint8 `[height, width, 3]`, for objects of a trajectory to get their
        colors from; None: the colors of the trajectory.
      resize: How the image reached the size, which the maps follow: see `media.geometry`.
      point_sigma: Standard deviation of points, as a fraction of the shorter side.

    Returns:
      uint8 `[num_frames, height, width, 3]`.

    Warns:
      UserWarning: The trajectory has no objects, some are never inside the maps, or they are points
        and the maps are to show boxes or masks.

    Raises:
      UserError: The source is missing, unreadable, of another type, or holds no maps.
    """
    if isinstance(source, str | Path):
        canvas = canvas or Canvas(width, height)
        source = read_motion(source, ImportOptions(canvas, num_frames, map_kind=map_kind))
    if isinstance(source, Trajectory):
        fit = Fit.of((source.canvas.height, source.canvas.width), (height, width), resize)
        _warn_of_nothing_to_follow(source, fit)
        _warn_of_points(source, map_kind)
        return render(
            source,
            height,
            width,
            map_kind,
            num_frames=num_frames,
            image=image,
            resize=resize,
            point_sigma=point_sigma,
        )
    if not isinstance(source, np.ndarray):
        raise UserError(
            f"a trajectory cannot be a {type(source).__name__}: give a Trajectory, a path to a "
            "trajectory.json, map video or folder of PNGs, or maps as uint8 [F, H, W, 3]"
        )
    if num_frames < 1:
        raise UserError(f"{num_frames=}, expected at least 1")
    check_video_size(max(num_frames, len(source)), height, width, "maps")
    fitted = fit_frames(source, height, width, resize, nearest=True)
    frames = np.rint(np.linspace(0, len(source) - 1, num_frames)).astype(int)
    frames[1:] = np.clip(frames[1:], 1, len(source) - 1) if len(source) > 1 else 0
    return fitted[frames]


def _warn_of_nothing_to_follow(trajectory: Trajectory, fit: Fit) -> None:
    """Warns where maps would be black, or would not show an object on any frame."""
    if not trajectory.objects:
        warnings.warn("the trajectory has no objects, so its maps are black", stacklevel=3)
        return
    height, width = fit.target
    x0, y0, x1, y1 = np.moveaxis(fit.boxes(trajectory.boxes()), -1, 0)
    inside_KF = (x1 > 0) & (y1 > 0) & (x0 < width) & (y0 < height)
    outside = [
        f"{item.id} {item.name[:40]!r}"
        for item, inside_F in zip(trajectory.objects, inside_KF, strict=True)
        if not inside_F.any()
    ]
    if outside:
        more = f" and {len(outside) - 5} more" if len(outside) > 5 else ""
        warnings.warn(
            f"objects outside the image on every frame: {', '.join(outside[:5])}{more}; are their "
            "boxes fractions of the canvas, and points in its pixels?",
            stacklevel=3,
        )


def _warn_of_points(trajectory: Trajectory, map_kind: MapKind) -> None:
    """Warns where maps would show points as dots, which their model has not seen."""
    points = [item.id for item in trajectory.objects if item.points is not None]
    if points and map_kind != "points":
        warnings.warn(
            f"objects {', '.join(map(str, points[:5]))} follow points, which have no size: in maps "
            f"of map_kind={map_kind!r} they are hardly visible; give them boxes, or use a model of "
            "points",
            stacklevel=3,
        )


def read_motion(path: str | Path, options: ImportOptions) -> Trajectory | np.ndarray:
    """Reads a file: maps, uint8 `[F, H, W, 3]`, where the format holds maps, else a trajectory.

    Raises:
      UserError: The file is missing or unreadable, or of no known format.
    """
    path = Path(path)
    read_maps = find_format(path).read_maps
    if read_maps:
        return read_maps(path)
    imported = read_trajectory(path, options)
    for notice in imported.notices:
        warnings.warn(f"{path}: {notice}", stacklevel=3)
    return imported.trajectory
