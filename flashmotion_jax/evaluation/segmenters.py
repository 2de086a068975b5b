"""Segmenters: where the objects of a benchmark's video are in a generated one.

A segmenter takes frames one at a time and gives the masks of each, so a video is never held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from flashmotion_jax.data.sprites import PALETTE
from flashmotion_jax.evaluation.benchmarks.base import Item, object_masks
from flashmotion_jax.evaluation.benchmarks.sprites import segment
from flashmotion_jax.media.frames import image_files
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.palette import palette_color
from flashmotion_jax.trajectory.schema import Trajectory

Segmenter = Callable[[Item, Iterator[np.ndarray]], Iterator[np.ndarray]]
"""(item, frames uint8 `[H, W, 3]`) -> for each frame bool `[K, h, w]`, K as the item's labels."""


def precomputed(folder: str | Path) -> Segmenter:
    """Reads masks that another program made.

    Args:
      folder: Folder with `<id>/`, a label image for each frame of the generated video, with the
        labels or colors of the benchmark.

    Returns:
      A segmenter that raises UserError if a frame has no image.
    """

    def masks(item: Item, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        files = image_files(Path(folder) / item.id)
        for i, _ in enumerate(frames):
            if i >= len(files):
                raise UserError(f"{len(files)} masks of the generated video; more are required")
            yield object_masks(files[i], item.labels)

    return masks


def smallest_on_top(segmenter: Segmenter) -> Segmenter:
    """Gives each pixel to the smallest of the objects that were found there.

    MagicData's masks are painted this way: large objects first, small ones over them.
    """

    def masks(item: Item, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for found_KHW in segmenter(item, frames):
            result = np.zeros_like(found_KHW)
            taken = np.zeros(found_KHW.shape[1:], bool)
            for k in np.argsort([np.count_nonzero(mask) for mask in found_KHW], kind="stable"):
                result[k] = found_KHW[k] & ~taken
                taken |= found_KHW[k]
            yield result

    return masks


def sprite_colors(root: str | Path) -> Segmenter:
    """Finds Sprites by their colors, which are known exactly.

    Args:
      root: Folder of the benchmark, whose `trajectories/` name the color of each object.

    Returns:
      A segmenter that raises UserError if the trajectory is missing.
    """

    def masks(item: Item, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        objects = Trajectory.load(Path(root) / "trajectories" / f"{item.id}.json").objects
        colors = [_color(one.name) for one in objects]
        label_of = [_packed(palette_color(one.id)) for one in objects]
        # All colors of the clip are searched, so that objects that enter later keep their pixels.
        wanted_K = 1 + np.array([label_of.index(label) for label in item.labels])
        for frame in frames:
            yield segment(frame[None], colors)[0] == wanted_K[:, None, None]

    return masks


def _color(name: str) -> str:
    for word in name.split():
        if word in PALETTE:
            return word
    raise UserError(f"object {name!r} has no color: expected one of {', '.join(PALETTE)}")


def _packed(color: tuple[int, int, int]) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue
