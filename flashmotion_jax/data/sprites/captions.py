"""Captions of scenes, in the words of `VOCABULARY`."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.data.sprites.scene import PALETTE, TEXTURES, Scene, Sprite
from flashmotion_jax.data.sprites.shapes import SHAPES

_WORDS = (
    "a an and around at camera down enters from grows in leaves left moves others out pans right "
    "shrinks stands still the to top bottom turns up zooms"
)
VOCABULARY: tuple[str, ...] = tuple(
    sorted({*_WORDS.split(), *PALETTE, *SHAPES, *TEXTURES} - {"plain"})
)
"""All words of captions, sorted. Captions also have commas and semicolons."""

#: Maximum number of named sprites; the remaining ones are "others", to limit the tokens.
NAMED_SPRITES = 4
#: A sprite counts as moving if its center is displaced by this many pixels (of 64) at the end.
_MOVES = 4
#: A direction is named if it is this fraction of the other one: the tangent of 22.5 degrees.
_DIAGONAL = 0.4142


def describe(scene: Scene) -> str:
    """Returns a caption such as "a red circle moves up and turns; the camera pans right".

    Directions are displacements in the image from the first to the last frame. Sprites stand still
    relative to the world.
    """
    named, others = scene.sprites[:NAMED_SPRITES], scene.sprites[NAMED_SPRITES:]
    sentences = [f"{_article(name_of(sprite))} {_deeds(sprite, scene)}" for sprite in named]
    caption = ", ".join([*sentences, "and others"] if others else sentences)
    camera = scene.camera
    if camera.kind == "still":
        return caption
    return f"{caption}; the camera {camera.kind}s {camera.direction}"


def name_of(sprite: Sprite) -> str:
    """Returns the name of a sprite, such as "striped blue square"."""
    texture = [] if sprite.texture == "plain" else [sprite.texture]
    return " ".join([*texture, sprite.color, sprite.shape])


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _deeds(sprite: Sprite, scene: Scene) -> str:
    deeds = [_motion(sprite, scene)]
    if sprite.angle_F[0] != sprite.angle_F[-1]:
        deeds.append("turns")
    own_radius_F = sprite.radius_F / scene.camera.zoom_F
    if abs(own_radius_F[-1] / own_radius_F[0] - 1) > 0.01:
        deeds.append("grows" if own_radius_F[-1] > own_radius_F[0] else "shrinks")
    if deeds[0] == "stands still" and len(deeds) > 1:
        deeds = deeds[1:]
    return " and ".join(deeds)


def _motion(sprite: Sprite, scene: Scene) -> str:
    boxes_F4 = sprite.boxes()
    came, gone = _side_beyond(boxes_F4[0], scene), _side_beyond(boxes_F4[-1], scene)
    crossings = [f"enters from the {came}"] if came else []
    crossings += [f"leaves at the {gone}"] if gone else []
    if crossings:
        return " and ".join(crossings)
    if sprite.is_still:
        return "stands still"
    x, y = (sprite.center_F2[-1] - sprite.center_F2[0]).tolist()
    if np.hypot(x, y) < _MOVES * scene.config.unit:
        return "moves around"
    vertical = [("up" if y < 0 else "down")] if abs(y) > _DIAGONAL * abs(x) else []
    horizontal = [f"to the {'left' if x < 0 else 'right'}"] if abs(x) > _DIAGONAL * abs(y) else []
    return f"moves {' and '.join(vertical + horizontal)}"


def _side_beyond(box_4: np.ndarray, scene: Scene) -> str | None:
    """Returns the side of the canvas that a box is completely beyond; the farther one of two."""
    x0, y0, x1, y1 = box_4.tolist()
    width, height = scene.config.width, scene.config.height
    gaps = {"left": -x1, "right": x0 - width, "top": -y1, "bottom": y0 - height}
    side = max(gaps, key=lambda name: gaps[name])
    return side if gaps[side] >= 0 else None
