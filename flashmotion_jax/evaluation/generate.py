"""Makes the videos of a benchmark with our pipeline, in parts that several processes share.

Each video depends on its place in the benchmark and the seed alone. One that is there is not made
again, and none is there before it is whole: an interrupted run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flashmotion_jax.evaluation.asked import first_frame, trajectory_of
from flashmotion_jax.evaluation.benchmarks import Item, object_masks
from flashmotion_jax.media.frames import find_video
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.palette import palette_color
from flashmotion_jax.trajectory.render import render_masks
from flashmotion_jax.trajectory.schema import Trajectory

if TYPE_CHECKING:
    from flashmotion_jax.inference.pipeline import Pipeline

Part = tuple[int, int]
"""Number, from 1, and how many."""


def of_part(items: Sequence[Item], part: Part) -> list[tuple[int, Item]]:
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
    has_adapter: bool = True,
    progress: Callable[[int, int], object] | None = None,
) -> int:
    """Makes the videos that are missing.

    Args:
      pipeline: of the model.
      items: of the benchmark, all of them, in its order.
      out: folder of `<id>.mp4`.
      part: which of them this process makes.
      seed: of the noise; video i of the benchmark takes `seed + i`.
      method_frames: of a video; None: as many as are compared.
      has_adapter: whether the pipeline follows trajectories.
      progress: called with how many are done, and of how many, after each.

    Returns:
      How many were made.

    Raises:
      UserError: the model makes fewer frames than are compared and `method_frames` is None, or a
        video's first frame or trajectory cannot be read.
    """
    mine = of_part(items, part)
    made = 0
    for done, (place, item) in enumerate(mine, start=1):
        if not find_video(out, item.id).exists():
            sampling = pipeline.sampling
            frames = method_frames or item.num_frames
            if frames > sampling.num_frames:
                raise UserError(
                    f"{item.id}: {frames} frames are compared, the model makes "
                    f"{sampling.num_frames}; add --method-frames {sampling.num_frames}"
                )
            maps = _motion(item, sampling.map_kind) if has_adapter else None
            video = pipeline(
                first_frame(item), item.caption, maps, seed=seed + place, num_frames=frames
            )
            write_video(out / f"{item.id}.mp4", video, sampling.fps, lossless=_is_small(video))
            made += 1
        if progress is not None:
            progress(done, len(mine))
    return made


def _motion(item: Item, map_kind: str) -> Trajectory | np.ndarray:
    """What the adapter is given: every frame's masks if it was trained on these, or boxes."""
    if map_kind == "mask" and len(item.masks) == item.num_frames:
        colors = [
            (label >> 16, label >> 8 & 255, label & 255) if label > 255 else palette_color(k)
            for k, label in enumerate(item.labels, start=1)
        ]
        masks_FKHW = np.stack([object_masks(path, item.labels) for path in item.masks])
        return render_masks(masks_FKHW.swapaxes(0, 1), colors)
    return trajectory_of(item)


def _is_small(video: np.ndarray) -> bool:
    """Whether chroma at half the size would blur what there is to see."""
    return min(video.shape[1:3]) < 256
