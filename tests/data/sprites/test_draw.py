from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flashmotion_jax.data.sprites import PALETTE, Sprites
from flashmotion_jax.data.sprites.draw import draw
from flashmotion_jax.data.sprites.scene import TEXTURES, Camera, Scene
from flashmotion_jax.trajectory.masks import bounding_box

SCENES = [Sprites(40, seed=3).scene(index) for index in range(40)]


def alone(scene, sprite, margin=96):
    """Every fourth frame of one sprite, on a canvas so large that no edge clips it."""
    fourth = slice(None, None, 4)
    moved = replace(
        sprite,
        center_F2=sprite.center_F2[fourth] + margin,
        radius_F=sprite.radius_F[fourth],
        angle_F=sprite.angle_F[fourth],
    )
    frames, size = len(moved.radius_F), 64 + 2 * margin
    config = replace(scene.config, num_frames=frames, height=size, width=size)
    camera = Camera("still", "", np.zeros((frames, 2)), np.ones(frames))
    return Scene(config, scene.background, camera, (moved,))


def eroded(mask_FHW):
    """Pixels whose neighbours, all eight, are inside too."""
    padded = np.pad(mask_FHW, ((0, 0), (1, 1), (1, 1)))
    height, width = mask_FHW.shape[1:]
    windows = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.all(windows, axis=0)


def test_boxes_are_those_of_the_whole_mask_within_a_pixel():
    for scene in SCENES[::2]:
        for sprite in scene.sprites:
            single = alone(scene, sprite)
            masks_FHW = draw(single).masks_KFHW[0]
            expected_F4 = np.array([bounding_box(mask_HW) for mask_HW in masks_FHW])
            np.testing.assert_allclose(single.sprites[0].boxes(), expected_F4, atol=1)


def test_masks_are_what_later_sprites_leave_of_them():
    for scene in SCENES:
        visible_KFHW = draw(scene).masks_KFHW
        whole_KFHW = [
            draw(replace(scene, sprites=(sprite,))).masks_KFHW[0] for sprite in scene.sprites
        ]
        covered_FHW = np.zeros_like(whole_KFHW[0])
        for k in reversed(range(len(whole_KFHW))):
            np.testing.assert_array_equal(visible_KFHW[k], whole_KFHW[k] & ~covered_FHW)
            covered_FHW |= whole_KFHW[k]


def test_static_pixels_are_the_background_and_muted():
    for scene in SCENES:
        drawing = draw(scene)
        empty = draw(replace(scene, sprites=()))
        assert empty.masks_KFHW.shape == (0, 17, 64, 64)
        assert empty.static_FHW.all()
        static = drawing.static_FHW
        np.testing.assert_array_equal(drawing.video[static], empty.video[static])
        assert not (drawing.masks_KFHW.any(axis=0) & static).any()
        brightest = empty.video.max(axis=-1).astype(float)
        assert ((brightest - empty.video.min(axis=-1)) / brightest).max() < 0.25


def test_a_sprites_pixels_are_its_color_but_for_brightness():
    for scene in SCENES:
        drawing = draw(scene)
        for sprite, mask_FHW in zip(scene.sprites, drawing.masks_KFHW, strict=True):
            pixels_NC = drawing.video[eroded(eroded(mask_FHW))].astype(float)
            color_C = np.array(PALETTE[sprite.color], float)
            light_N1 = pixels_NC.max(axis=1, keepdims=True) / color_C.max()
            np.testing.assert_allclose(pixels_NC, light_N1 * color_C, atol=1.01)
            assert ((light_N1 > 0.6) & (light_N1 < 1.01)).all()


@pytest.mark.parametrize("shape", ["circle", "ring"])
def test_edges_are_smooth_and_areas_right(make_scene, make_sprite, shape):
    radius = 11.3
    dot = make_sprite((30.2, 31.7), (33.1, 30.4), shape=shape, radius_F=np.full(3, radius))
    scene = make_scene(dot)
    video = draw(scene).video[..., 1].astype(float)
    behind = draw(replace(scene, sprites=())).video[..., 1].astype(float)
    area = np.pi * radius**2 * (1 - (0.55**2 if shape == "ring" else 0))
    cover = (video - behind) / (PALETTE["red"][1] - behind)
    np.testing.assert_allclose(cover.sum(axis=(1, 2)), area, rtol=0.02)
    assert draw(scene).masks_KFHW.sum(axis=(2, 3)) == pytest.approx(area, rel=0.03)


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_turn_and_grow_with_the_sprite(make_scene, make_sprite, texture):
    def light(angle, radius):
        pose = {"angle_F": np.full(3, angle), "radius_F": np.full(3, radius)}
        disc = make_sprite((32, 32), (32, 32), shape="circle", texture=texture, **pose)
        return draw(make_scene(disc, wave=0.0)).video[0].astype(float)

    upright = light(0, 12.0)
    np.testing.assert_allclose(light(np.pi / 2, 12.0), np.rot90(upright, -1), atol=1)
    # Twice the size: its pixels, averaged two by two, are those of the half.
    double = light(0, 24.0).reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(double - light(0, 12.0)[16:48, 16:48]).mean() < 4
    inside = upright[25:39, 25:39, 0]
    assert (inside.min() < 0.7 * inside.max()) == (texture != "plain")


def test_backgrounds_follow_the_camera(make_scene, make_camera):
    still = draw(make_scene()).video
    assert (still == still[0]).all()
    camera = make_camera("pan", "right", offset=(10.0, 4.0))
    panned = draw(make_scene(camera=camera)).video
    np.testing.assert_array_equal(panned[0], still[0])
    np.testing.assert_array_equal(panned[2, :, :-10], still[0, :, 10:])
    zoomed = draw(make_scene(camera=make_camera("zoom", "in", zoom=1.25))).video
    x = 32 + (np.arange(64) + 0.5 - 32) / 1.25
    expected = 50 + 100 * np.clip(0.5 + 0.4 * np.cos(0.3 * x), 0, 1)
    np.testing.assert_allclose(zoomed[2, 5, :, 0], expected, atol=0.51)
