"""The pipeline's door: any form of a trajectory to maps of the model's size and length."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashmotion_jax.config import MapKind
from flashmotion_jax.media.images import cover_crop
from flashmotion_jax.media.videos import read_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.quantise import exact_maps
from flashmotion_jax.trajectory.render import render
from flashmotion_jax.trajectory.schema import Trajectory


def load_maps(
    source: Trajectory | str | Path | np.ndarray,
    *,
    num_frames: int,
    height: int,
    width: int,
    map_kind: MapKind = "box",
) -> np.ndarray:
    """Loads or renders trajectory maps.

    Args:
      source: A trajectory; the path of a trajectory.json, a map video or a folder of PNGs; or
        maps, uint8 [F, H, W, 3]. A lossy video is brought back to its exact colors.
      num_frames: Wanted length: a trajectory's motion is stretched to it, maps are resampled by
        nearest. Frame 0, the masks, stays frame 0 and is not repeated.
      height: Wanted, in pixels. What has another aspect ratio covers it and is centre cropped.
      width: Wanted, in pixels.
      map_kind: What to render of a trajectory; maps are taken as they are.

    Returns:
      uint8 [num_frames, height, width, 3].

    Raises:
      UserError: The source is missing, unreadable, of another type, or holds no maps.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        is_json = path.suffix.lower() == ".json"
        source = Trajectory.load(path) if is_json else _read_maps(path)
    if isinstance(source, Trajectory):
        return render(source, height, width, map_kind, num_frames=num_frames)
    if not isinstance(source, np.ndarray):
        raise UserError(
            f"a trajectory cannot be a {type(source).__name__}: give a Trajectory, a path to a "
            "trajectory.json, map video or folder of PNGs, or maps as uint8 [F, H, W, 3]"
        )
    if num_frames < 1:
        raise UserError(f"{num_frames=}, expected at least 1")
    cropped = cover_crop(source, height, width, nearest=True)
    frames = np.rint(np.linspace(0, len(source) - 1, num_frames)).astype(int)
    frames[1:] = np.clip(frames[1:], 1, len(source) - 1) if len(source) > 1 else 0
    return cropped[frames]


def _read_maps(path: Path) -> np.ndarray:
    frames, _ = read_video(path)
    if path.is_dir() or path.suffix.lower() == ".npy":
        return frames
    try:
        return exact_maps(frames)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
