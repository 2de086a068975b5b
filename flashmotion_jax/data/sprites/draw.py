"""Rendering of scenes to pixels and masks, anti-aliased by the distance to each outline."""

from __future__ import annotations

import dataclasses

import numpy as np

from flashmotion_jax.data.sprites.scene import PALETTE, Background, Camera, Scene, Sprite
from flashmotion_jax.data.sprites.shapes import SHAPES

#: Brightness of the dark parts of a texture.
_DARK = 0.62
#: Distance between stripes or dots, in radii of the sprite.
_PERIOD = 0.8


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A drawn scene.

    Attributes:
      video: uint8 [F, H, W, 3].
      masks_KFHW: bool, the pixels whose larger part a sprite covers and no later one does.
      static_FHW: bool, the pixels that no sprite touches.
    """

    video: np.ndarray
    masks_KFHW: np.ndarray
    static_FHW: np.ndarray


def draw(scene: Scene) -> Drawing:
    """Draws a scene: the background, then the sprites in order."""
    config = scene.config
    shape_FHW = (config.num_frames, config.height, config.width)
    pixels_FHWC = np.empty((*shape_FHW, 3), np.float32)
    pixels_FHWC[:] = _draw_background(scene.background, scene.camera, config.height, config.width)
    masks_KFHW = np.zeros((len(scene.sprites), *shape_FHW), bool)
    static_FHW = np.ones(shape_FHW, bool)
    for k, sprite in enumerate(scene.sprites):
        rows, columns = _window(sprite, config.height, config.width)
        cover_FHW, light_FHW = _draw_sprite(sprite, rows, columns)
        colors_FHWC = light_FHW[..., None] * np.array(PALETTE[sprite.color], np.float32)
        window_FHWC = pixels_FHWC[:, rows, columns]
        window_FHWC += cover_FHW[..., None] * (colors_FHWC - window_FHWC)
        mask_FHW = cover_FHW >= 0.5
        masks_KFHW[:k, :, rows, columns] &= ~mask_FHW
        masks_KFHW[k, :, rows, columns] = mask_FHW
        static_FHW[:, rows, columns] &= cover_FHW == 0
    return Drawing(np.rint(pixels_FHWC).astype(np.uint8), masks_KFHW, static_FHW)


def _draw_background(background: Background, camera: Camera, height: int, width: int) -> np.ndarray:
    """Returns float32 [F, H, W, 3], or F = 1 if nothing moves."""
    frames = slice(None) if camera.kind != "still" else slice(1)
    offset_F2, zoom_F1 = camera.offset_F2[frames], camera.zoom_F[frames, None]
    x_FW = width / 2 + (np.arange(width) + 0.5 - width / 2) / zoom_F1 + offset_F2[:, :1]
    y_FH = height / 2 + (np.arange(height) + 0.5 - height / 2) / zoom_F1 + offset_F2[:, 1:]
    phase_FWN = x_FW[..., None] * background.frequencies_N2[:, 0]
    phase_FHN = y_FH[..., None] * background.frequencies_N2[:, 1] + background.phases_N
    # cos(a + b) = cos a cos b - sin a sin b: a sum of waves is a matrix product.
    rows = np.concatenate([np.cos(phase_FHN), -np.sin(phase_FHN)], axis=-1)
    columns = np.concatenate([np.cos(phase_FWN), np.sin(phase_FWN)], axis=-1)
    waves_FHW = (rows * np.tile(background.amplitudes_N, 2)) @ columns.swapaxes(1, 2)
    mix_FHW1 = np.clip(0.5 + 0.4 * waves_FHW, 0, 1)[..., None].astype(np.float32)
    first_C, second_C = background.colors_2C.astype(np.float32)
    return first_C + mix_FHW1 * (second_C - first_C)


def _window(sprite: Sprite, height: int, width: int) -> tuple[slice, slice]:
    """Returns the rows and columns of the canvas that a sprite touches in any frame."""
    boxes_F4 = sprite.boxes()
    x0, y0 = np.maximum(np.floor(boxes_F4[:, :2].min(axis=0)) - 1, 0).astype(int).tolist()
    x1, y1 = np.maximum(np.ceil(boxes_F4[:, 2:].max(axis=0)) + 1, 0).astype(int).tolist()
    return slice(min(y0, height), min(y1, height)), slice(min(x0, width), min(x1, width))


def _draw_sprite(sprite: Sprite, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Returns coverage by a sprite and its brightness in a window, [F, h, w] each."""
    radius, cos, sin = (
        values_F.astype(np.float32)[:, None, None]
        for values_F in (sprite.radius_F, np.cos(sprite.angle_F), np.sin(sprite.angle_F))
    )
    center_x, center_y = sprite.center_F2.T.astype(np.float32)[:, :, None, None]
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - center_x) / radius
    y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - center_y) / radius
    own_x, own_y = x * cos + y * sin, y * cos - x * sin
    distance = SHAPES[sprite.shape].distance(own_x, own_y)
    cover = np.clip(0.5 - distance * radius, 0, 1)
    dark = np.clip(0.5 - _darkness_distance(sprite.texture, own_x, own_y) * radius, 0, 1)
    return cover, 1 - (1 - _DARK) * dark


def _darkness_distance(texture: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The signed distance to where a texture is dark, negative inside, in radii."""
    if texture == "plain":
        return np.full_like(x, np.inf)
    if texture == "shaded":
        return -y
    from_y = np.abs(y - _PERIOD * np.rint(y / _PERIOD))
    if texture == "striped":
        return from_y - _PERIOD / 4
    return np.hypot(x - _PERIOD * np.rint(x / _PERIOD), from_y) - _PERIOD / 3.2
