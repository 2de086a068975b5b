"""Scenes: a textured background, sprites with their poses, and a camera.

Pixels, masks, boxes and captions are functions of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flashmotion_jax.config import MapKind
from flashmotion_jax.data.sprites.shapes import SHAPES
from flashmotion_jax.runtime.errors import UserError

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 40),
    "orange": (245, 130, 20),
    "yellow": (245, 220, 30),
    "green": (40, 180, 60),
    "cyan": (30, 205, 215),
    "blue": (45, 80, 230),
    "purple": (140, 45, 205),
    "pink": (250, 85, 175),
}
"""Name -> RGB 0..255 of a sprite where its texture is brightest; textures keep hue and saturation.
Backgrounds have a saturation below 0.25."""

TEXTURES = ("plain", "striped", "dotted", "shaded")
"""Patterns of brightness of a sprite."""

#: Side of the canvas -> direction that leads outside, (x, y).
SIDES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}

#: With more, sprites would be too small to distinguish in tokens of 8 x 8 pixels.
MAX_OBJECTS = 6

#: A sprite is about a token wide: within an outline there would be tokens that see nothing of it.
MAP_KIND: MapKind = "filled_box"


@dataclass(frozen=True)
class SpritesConfig:
    """Size of clips and number of sprites.

    Attributes:
      num_frames: Frames per clip. Motions last as long as the clip, so they are slower in longer
        ones.
      height: Height in pixels.
      width: Width in pixels.
      fps: Frames per second.
      min_objects: Minimum number of sprites per clip.
      max_objects: Maximum number of sprites per clip.

    Raises:
      UserError: A field is out of range.
    """

    num_frames: int = 17
    height: int = 64
    width: int = 64
    fps: int = 8
    min_objects: int = 1
    max_objects: int = MAX_OBJECTS

    def __post_init__(self):
        for name, low, high in (
            ("num_frames", 2, 10_000),
            ("height", 32, 4096),
            ("width", 32, 4096),
            ("fps", 1, 1000),
            ("min_objects", 1, MAX_OBJECTS),
            ("max_objects", self.min_objects, MAX_OBJECTS),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"{name}={value!r}; expected a whole number from {low} to {high}")

    @property
    def unit(self) -> float:
        """Pixels of this clip for one of a short side of 64."""
        return min(self.height, self.width) / 64


@dataclass(frozen=True)
class Background:
    """Two muted colors, mixed by a sum of plane waves.

    Attributes:
      colors_2C: float, RGB 0..255.
      frequencies_N2: of the waves along x and y, in radians a pixel.
      phases_N: in radians.
      amplitudes_N: sum of squares 1.
    """

    colors_2C: np.ndarray
    frequencies_N2: np.ndarray
    phases_N: np.ndarray
    amplitudes_N: np.ndarray


@dataclass(frozen=True)
class Camera:
    """Motion of the camera; frame 0 is neither shifted nor zoomed.

    Attributes:
      kind: Kind of motion.
      direction: "left", "right", "up", "down" of a pan, "in", "out" of a zoom, else "".
      offset_F2: Displacement, (x, y) in pixels of the world.
      zoom_F: Magnification around the center.
    """

    kind: Literal["still", "pan", "zoom"]
    direction: str
    offset_F2: np.ndarray
    zoom_F: np.ndarray


@dataclass(frozen=True)
class Sprite:
    """A sprite, with its poses in the image.

    Attributes:
      shape: key of `SHAPES`.
      color: key of `PALETTE`.
      texture: one of `TEXTURES`.
      center_F2: (x, y) in pixels; a pixel's center is at one half.
      radius_F: in pixels, of the circle around it.
      angle_F: in radians, clockwise.
      is_still: Whether the sprite does not move relative to the world.
    """

    shape: str
    color: str
    texture: str
    center_F2: np.ndarray
    radius_F: np.ndarray
    angle_F: np.ndarray
    is_still: bool

    def boxes(self) -> np.ndarray:
        """Around the whole outline, seen or not: float64 [F, 4], (x0, y0, x1, y1) in pixels."""
        return SHAPES[self.shape].boxes(self.center_F2, self.radius_F, self.angle_F)


@dataclass(frozen=True)
class Scene:
    """Contents of a clip; later sprites are in front of earlier ones."""

    config: SpritesConfig
    background: Background
    camera: Camera
    sprites: tuple[Sprite, ...]
