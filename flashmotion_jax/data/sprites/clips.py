"""Clips by index, as a source for grain, and the held-out groups."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import replace
from typing import Literal

import numpy as np

from flashmotion_jax.config import MapColors
from flashmotion_jax.data.sprites.captions import describe, name_of
from flashmotion_jax.data.sprites.draw import draw
from flashmotion_jax.data.sprites.sampling import sample_scene
from flashmotion_jax.data.sprites.scene import MAP_KIND, MAX_OBJECTS, Scene, SpritesConfig
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.keyframes import Keyframe
from flashmotion_jax.trajectory.masks import Mask
from flashmotion_jax.trajectory.render import image_colors, render, render_masks
from flashmotion_jax.trajectory.schema import Canvas, TrackedObject, Trajectory

Split = Literal["train", "test"]

#: Incremented when the clips of a seed, or their maps, change.
VERSION = 3

#: First number of a clip's entropy, so that splits share no scene.
_DOMAINS = {"train": 0, "test": 1}


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip and its exact annotations.

    Attributes:
      id: split, seed and index, such as "train-0-000012".
      caption: Description of the motion.
      video: uint8 [F, H, W, 3].
      masks_KFHW: bool, the visible part of each object.
      boxes_KF4: float64, (x0, y0, x1, y1) as fractions of height and width, around the whole
        object: hidden or outside, it still has one, which may leave the canvas.
      colors: keys of `PALETTE`, one an object, all different.
      trajectory: the boxes again, a keyframe a frame, ids 1..K, with the masks of frame 0.
      static_FHW: bool, the pixels of the background that no object touches.
      camera_moves: then the background does, too.
    """

    id: str
    caption: str
    video: np.ndarray
    masks_KFHW: np.ndarray
    boxes_KF4: np.ndarray
    colors: tuple[str, ...]
    trajectory: Trajectory
    static_FHW: np.ndarray
    camera_moves: bool


class Sprites:
    """Procedural clips, as a source for grain: pure functions of split, seed and index.

    Args:
      count: Number of clips.
      seed: Seed, from 0 to 2^32 - 1.
      split: "train" or "test", which have no scene in common for any seeds.
      config: Size of the clips.
      num_objects: Number of objects in every clip; None draws it, preferring small numbers.

    Attributes:
      count, seed, split, config, num_objects: The arguments.

    Raises:
      UserError: An argument is out of range.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int = 0,
        split: Split = "train",
        config: SpritesConfig | None = None,
        num_objects: int | None = None,
    ):
        config = config or SpritesConfig()
        if split not in _DOMAINS:
            raise UserError(f"split={split!r}; expected 'train' or 'test'")
        if not isinstance(count, int) or count < 1:
            raise UserError(f"count={count!r}; expected a whole number of clips, at least 1")
        if not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UserError(f"seed={seed!r}; expected a whole number from 0 to 2^32 - 1")
        low, high = config.min_objects, config.max_objects
        if num_objects is not None and num_objects not in range(low, high + 1):
            raise UserError(f"num_objects={num_objects!r}; expected {low} to {high}, or None")
        self.count, self.seed, self.split = count, seed, split
        self.config, self.num_objects = config, num_objects

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        index = range(self.count)[operator.index(index)]
        scene = self.scene(index)
        drawing = draw(scene)
        trajectory = _trajectory(scene, drawing.masks_KFHW)
        return Clip(
            self.id(index),
            describe(scene),
            drawing.video,
            drawing.masks_KFHW,
            trajectory.boxes(),
            tuple(sprite.color for sprite in scene.sprites),
            trajectory,
            drawing.static_FHW,
            scene.camera.kind != "still",
        )

    def __repr__(self) -> str:
        # grain resumes a loader only where its source has the same words as before.
        of = f"seed={self.seed}, split={self.split!r}, config={self.config}"
        return f"Sprites({self.count}, {of}, num_objects={self.num_objects})"

    def id(self, index: int) -> str:
        """Returns the id of a clip."""
        return f"{self.split}-{self.seed}-{index:06d}"

    def scene(self, index: int) -> Scene:
        """Returns the contents of a clip without its pixels, ten times as fast as the clip."""
        entropy = [_DOMAINS[self.split], self.seed, index]
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        return sample_scene(rng, self.config, self.num_objects)


def draw_maps(
    clip: Clip, map_colors: MapColors = "palette", point_sigma: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the maps of the visible masks, and of the boxes or their centers, of a clip.

    Args:
      clip: The clip.
      map_colors: Colors of the objects, as in `SamplingConfig`.
      point_sigma: Of centers of boxes, as in `SamplingConfig`; None for boxes.

    Returns:
      uint8 [F, H, W, 3] each.
    """
    height, width = clip.video.shape[1:3]
    image = clip.video[0] if map_colors == "image" else None
    if image is None:
        colors = [item.rgb for item in clip.trajectory.objects]
    else:
        colors = image_colors(clip.trajectory, image)
    masks = render_masks(clip.masks_KFHW, colors)
    if point_sigma is None:
        return masks, render(clip.trajectory, height, width, MAP_KIND, image=image)
    points = render(clip.trajectory, height, width, "points", image=image, point_sigma=point_sigma)
    return masks, points


def test_groups(per_group: int, config: SpritesConfig | None = None) -> dict[str, Sprites]:
    """Returns the held-out split in FlashBench's groups, by number of objects.

    Args:
      per_group: Clips per group.
      config: Size of the clips; its numbers of objects are not used.

    Returns:
      "1", "2", "3", "4", "5" and "6+", FlashBench's name for six and more -> its clips.

    Raises:
      UserError: `per_group` is out of range.
    """
    size = config or SpritesConfig()
    groups = {}
    for count in range(1, MAX_OBJECTS + 1):
        name = "6+" if count == MAX_OBJECTS else str(count)
        grouped = replace(size, min_objects=count, max_objects=count)
        # Another seed per group, so that backgrounds differ, too.
        groups[name] = Sprites(per_group, seed=count, split="test", config=grouped)
    return groups


def _trajectory(scene: Scene, masks_KFHW: np.ndarray) -> Trajectory:
    config = scene.config
    objects = []
    for k, sprite in enumerate(scene.sprites):
        boxes_F4 = sprite.boxes() / ([config.width, config.height] * 2)
        mask_HW = masks_KFHW[k, 0]
        keyframes = [Keyframe(i, tuple(box)) for i, box in enumerate(boxes_F4.round(5).tolist())]
        objects.append(
            TrackedObject(
                k + 1,
                tuple(keyframes),
                name_of(sprite),
                mask=Mask.from_array(mask_HW) if mask_HW.any() else None,
            )
        )
    canvas = Canvas(config.width, config.height)
    return Trajectory(canvas, config.num_frames, config.fps, tuple(objects))
