"""Sources of videos with their maps: a MagicData folder, or Sprites drawn when they are read."""

from __future__ import annotations

import operator
from typing import Any, Literal

from flashmotion_jax.config import MapColors, Resize
from flashmotion_jax.data.magicdata import Example, MagicData
from flashmotion_jax.data.sprites import VERSION, Sprites, SpritesConfig, draw_maps
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats.magicdata_csv import RowError

DataKind = Literal["magicdata", "sprites"]


class DrawnSprites:
    """Sprites as examples, without a folder.

    Args:
      num_clips: Number of clips. Clip i of a seed does not depend on it.
      seed: Seed of the clips.
      num_frames: Frames per clip.
      height: Height of the clips, in pixels.
      width: Width of the clips, in pixels.
      map_colors: Colors of the objects in maps, as in `SamplingConfig`.
      point_sigma: Draws maps of points, as in `SamplingConfig`; None for none.

    Attributes:
      fingerprint: Identifies the clips.
      rejected: Rows that cannot be used; always empty.

    Raises:
      UserError: An argument is out of range.
    """

    rejected: tuple[RowError, ...] = ()

    def __init__(
        self,
        num_clips: int,
        *,
        seed: int = 0,
        num_frames: int,
        height: int,
        width: int,
        map_colors: MapColors = "palette",
        point_sigma: float | None = None,
    ):
        size = SpritesConfig(num_frames=num_frames, height=height, width=width)
        self._clips = Sprites(num_clips, seed=seed, config=size)
        self._map_colors: MapColors = map_colors
        self._point_sigma = point_sigma
        self.fingerprint = f"{self._clips!r}, version {VERSION}"
        if map_colors != "palette":
            self.fingerprint += f", map_colors={map_colors!r}"

    def __len__(self) -> int:
        return len(self._clips)

    def __repr__(self) -> str:
        # grain only resumes a loader if the representation of its source is unchanged.
        return f"DrawnSprites({self.fingerprint})"

    def __getitem__(self, index: int) -> Example:
        clip = self._clips[operator.index(index)]
        masks, boxes = draw_maps(clip, self._map_colors)
        boxes[0] = masks[0]  # as in `MagicData`
        points = None
        if self._point_sigma is not None:
            _, points = draw_maps(clip, self._map_colors, self._point_sigma)
            points[0] = masks[0]
        return Example(clip.id, clip.caption, clip.video, masks, boxes, points)

    @property
    def row_numbers(self) -> range:
        """Row number of each example."""
        return range(len(self))


def open_examples(
    data: DataKind,
    *,
    data_root: str,
    csv: str,
    num_clips: int,
    num_frames: int,
    height: int,
    width: int,
    resize: Resize,
    map_colors: MapColors = "palette",
    point_sigma: float | None = None,
) -> MagicData | DrawnSprites:
    """Opens the examples of a configuration, whose fields have the names of the arguments.

    Raises:
      UserError: The folder cannot be used, or clips cannot have this size, or the maps of a folder
        are asked for in colors of the image.
    """
    size: dict[str, Any] = {"num_frames": num_frames, "height": height, "width": width}
    size |= {"point_sigma": point_sigma}
    if data == "sprites":
        return DrawnSprites(num_clips, **size, map_colors=map_colors)
    if map_colors != "palette":
        raise UserError(
            f"map_colors={map_colors!r} of the model, but maps of MagicData are in the colors of "
            "its palette; use data='sprites', or a model with map_colors='palette'"
        )
    return MagicData(data_root, csv, **size, resize=resize)
