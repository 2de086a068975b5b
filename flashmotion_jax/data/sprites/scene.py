"""What is in a clip: a textured background, sprites with their poses, and a camera.

Pixels, masks, boxes and words all follow from a scene.
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
"""Name -> RGB 0..255 of a sprite where its texture is brightest; hue and saturation hold for all
of it. Backgrounds have a saturation below 0.25."""

TEXTURES = ("plain", "striped", "dotted", "shaded")
"""How the brightness of a sprite varies."""

#: Side -> the direction that leads out of the canvas there, (x, y).
SIDES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}

#: More would be smaller than a token of 8 x 8 pixels can tell apart.
MAX_OBJECTS = 6

#: A sprite is about a token wide: within an outline there would be tokens that see nothing of it.
MAP_KIND: MapKind = "filled_box"


@dataclass(frozen=True)
class SpritesConfig:
    """Size of the clips, and how many sprites they have.

    Attributes:
      num_frames: of a clip. Motions last as long as the clip, so a longer one is slower.
      height: in pixels.
      width: in pixels.
      fps: frames per second.
      min_objects: sprites a clip.
      max_objects: sprites a clip.

    Raises:
      UserError: a field is out of range.
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
    """Where the camera looks; on frame 0 at the world as it is.

    Attributes:
      kind: what it does.
      direction: "left", "right", "up", "down" of a pan, "in", "out" of a zoom, else "".
      offset_F2: what it has moved by, (x, y) in pixels of the world.
      zoom_F: magnification around the centre.
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
      centre_F2: (x, y) in pixels; a pixel's centre is at one half.
      radius_F: in pixels, of the circle around it.
      angle_F: in radians, clockwise.
      is_still: it has no motion of its own (the camera may).
    """

    shape: str
    color: str
    texture: str
    centre_F2: np.ndarray
    radius_F: np.ndarray
    angle_F: np.ndarray
    is_still: bool

    def boxes(self) -> np.ndarray:
        """Around the whole outline, seen or not: float64 [F, 4], (x0, y0, x1, y1) in pixels."""
        return SHAPES[self.shape].boxes(self.centre_F2, self.radius_F, self.angle_F)


@dataclass(frozen=True)
class Scene:
    """All that is in a clip; later sprites are in front of earlier ones."""

    config: SpritesConfig
    background: Background
    camera: Camera
    sprites: tuple[Sprite, ...]
