"""Generates the videos of a benchmark with our pipeline, in parts that several processes share.

A video depends only on its place in the benchmark and the seed. Existing videos are kept, and a
video appears only when it is complete, so an interrupted run can be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from flashmotion_jax.config import Resize
from flashmotion_jax.evaluation.benchmarks.base import Item, label_colors, object_masks
from flashmotion_jax.evaluation.conditions import first_frame, longer_motion, trajectory_of
from flashmotion_jax.media.frames import find_video
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import read_json_object
from flashmotion_jax.runtime.progress import Progress
from flashmotion_jax.trajectory.render import render_masks
from flashmotion_jax.trajectory.schema import Trajectory

if TYPE_CHECKING:
    from flashmotion_jax.inference.known_frames import FrameChoice
    from flashmotion_jax.inference.pipeline import Pipeline

#: File in the folder of the videos that says how first frames reached their size.
_RECORD = "generated.json"

Part = tuple[int, int]
"""Number of the part, from 1, and number of parts."""


def items_of_part(items: Sequence[Item], part: Part) -> list[tuple[int, Item]]:
    """The items of a part, each with its place in the benchmark."""
    number, count = part
    return [(i, item) for i, item in enumerate(items) if i % count == number - 1]


def generate(
    pipeline: Pipeline,
    items: Sequence[Item],
    out: Path,
    *,
    part: Part = (1, 1),
    seed: int = 0,
    method_frames: int | None = None,
    num_frames: int | None = None,
    has_adapter: bool = True,
    known_frames: FrameChoice = None,
    progress: Progress | None = None,
) -> int:
    """Generates the videos that are missing.

    Args:
      pipeline: The model.
      items: All videos of the benchmark, in its order.
      out: Folder of `<id>.mp4`.
      part: Which of them this process generates.
      seed: Video i of the benchmark has the noise of `seed + i`.
      method_frames: Frames of a video, uniformly spaced over those that are compared.
      num_frames: Frames of a video, of which the first are compared. None for as many as are
        compared.
      has_adapter: Whether the pipeline follows trajectories.
      known_frames: Frames on which an adapter knows the trajectory; see `make_request`.
      progress: Called with "generate", the number of finished videos and of all.

    Returns:
      The number of generated videos.

    Raises:
      UserError: Fewer frames are generated than are compared and `method_frames` is None, both
        numbers are given, the first frame or trajectory of a video cannot be read, or the folder
        has videos that reached their size in another way.
    """
    if method_frames and num_frames:
        raise UserError("--method-frames and --num-frames: give one of them")
    _record_resize(out, pipeline.sampling.resize)
    mine = items_of_part(items, part)
    made = 0
    for done, (place, item) in enumerate(mine, start=1):
        if not find_video(out, item.id).exists():
            sampling = pipeline.sampling
            most = num_frames or sampling.num_frames
            if (method_frames or item.num_frames) > most:
                raise UserError(
                    f"{item.id}: {method_frames or item.num_frames} frames are compared, and the "
                    f"model generates {most}; add --method-frames {most}"
                )
            frames = method_frames or num_frames or item.num_frames
            maps = _motion(item, sampling.map_kind, frames) if has_adapter else None
            video = pipeline(
                first_frame(item),
                item.caption,
                maps,
                seed=seed + place,
                num_frames=frames,
                known_frames=known_frames,
            )
            write_video(out / f"{item.id}.mp4", video, sampling.fps, lossless=_is_small(video))
            made += 1
        if progress is not None:
            progress("generate", done, len(mine))
    return made


def recorded_resize(folder: Path) -> Resize:
    """How the first frames reached the size of the videos in a folder; if unknown, "stretch".

    Raises:
      UserError: The folder's record is damaged.
    """
    file = folder / _RECORD
    if not file.is_file():
        return "stretch"
    values = read_json_object(file, "remove it, and pass --resize")
    if values.get("resize") not in get_args(Resize):
        raise UserError(f"{file} is damaged: remove it, and pass --resize")
    return values["resize"]


def _record_resize(folder: Path, resize: Resize) -> None:
    """Writes beside the videos what an evaluation has to know of them."""
    file = folder / _RECORD
    if file.is_file() and (found := recorded_resize(folder)) != resize:
        raise UserError(
            f"{folder} has videos of a model with resize={found!r}; this one has {resize!r}: "
            "choose another folder for --pred"
        )
    with replacing(file) as scratch:
        scratch.write_text(json.dumps({"resize": resize}) + "\n", encoding="utf-8")


def _motion(item: Item, map_kind: str, num_frames: int) -> Trajectory | np.ndarray:
    """What the adapter is given: maps of masks if it was trained on these, otherwise boxes."""
    added = max(num_frames - item.num_frames, 0)
    if map_kind == "mask" and len(item.masks) == item.num_frames:
        paths = [*item.masks, *item.later_masks[:added]]
        masks_FKHW = np.stack([object_masks(path, item.labels) for path in paths])
        maps = render_masks(masks_FKHW.swapaxes(0, 1), label_colors(item.labels))
        missing = item.num_frames + added - len(paths)
        return np.concatenate([maps, np.repeat(maps[-1:], missing, axis=0)])
    return longer_motion(item, num_frames) if added else trajectory_of(item)


def _is_small(video: np.ndarray) -> bool:
    """Whether halving the resolution of chroma would visibly blur the video."""
    return min(video.shape[1:3]) < 256
