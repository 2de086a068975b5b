"""Scenes made by hand, for tests that want one thing in them."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.data.sprites.scene import Background, Camera, Scene, Sprite, SpritesConfig

FRAMES = 3


@pytest.fixture
def make_camera():
    def make(kind="still", direction="", offset=(0.0, 0.0), zoom=1.0):
        offset_F2 = np.linspace((0, 0), offset, FRAMES)
        return Camera(kind, direction, offset_F2, np.linspace(1, zoom, FRAMES))

    return make


@pytest.fixture
def make_sprite():
    def make(start, end, **changes):
        fields = {
            "shape": "square",
            "color": "red",
            "texture": "plain",
            "center_F2": np.linspace(start, end, FRAMES),
            "radius_F": np.full(FRAMES, 8.0),
            "angle_F": np.zeros(FRAMES),
            "is_still": start == end,
        }
        return Sprite(**{**fields, **changes})

    return make


@pytest.fixture
def make_scene(make_camera):
    """A grey wave along x behind the sprites."""

    def make(*sprites, camera=None, wave=0.3):
        grey = np.array([[50.0] * 3, [150.0] * 3])
        background = Background(grey, np.array([[wave, 0.0]]), np.zeros(1), np.ones(1))
        return Scene(SpritesConfig(num_frames=FRAMES), background, camera or make_camera(), sprites)

    return make
