from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from flashmotion_jax.data.sprites import Sprites, SpritesConfig
from flashmotion_jax.data.sprites.sampling import smooth_path

COUNT = 600


@pytest.fixture(scope="module")
def scenes():
    source = Sprites(COUNT, seed=7)
    return [source.scene(index) for index in range(COUNT)]


def outside(box_4, size=64):
    x0, y0, x1, y1 = box_4
    return x1 <= 0 or y1 <= 0 or x0 >= size or y0 >= size


def test_few_sprites_are_more_often_than_many(scenes):
    counts = Counter(len(scene.sprites) for scene in scenes)
    assert set(counts) == set(range(1, 7))
    for number, chance in {1: 0.26, 2: 0.22, 3: 0.18, 4: 0.14, 5: 0.12, 6: 0.08}.items():
        # Four standard deviations of a binomial.
        assert abs(counts[number] / COUNT - chance) < 4 * (chance * (1 - chance) / COUNT) ** 0.5


def test_cameras_mostly_stand_still_and_begin_where_the_world_is(scenes):
    kinds = Counter(scene.camera.kind for scene in scenes)
    assert 0.62 < kinds["still"] / COUNT < 0.78
    assert 0.13 < kinds["pan"] / COUNT < 0.27
    assert 0.05 < kinds["zoom"] / COUNT < 0.15
    for scene in scenes:
        camera = scene.camera
        assert (camera.offset_F2[0] == 0).all()
        assert camera.zoom_F[0] == 1
        assert np.abs(np.diff(camera.offset_F2, axis=0)).max() <= 1
        assert np.abs(np.diff(camera.zoom_F) / camera.zoom_F[:-1]).max() < 0.015


def test_the_first_frame_shows_every_sprite_but_one_that_enters(scenes):
    crossed = 0
    for scene in scenes:
        first = [outside(sprite.boxes()[0]) for sprite in scene.sprites]
        last = [outside(sprite.boxes()[-1]) for sprite in scene.sprites]
        crossed += any(first) or any(last)
        assert sum(first) <= 1
        assert not all(first)
        for sprite, enters in zip(scene.sprites, first, strict=True):
            x0, y0, x1, y1 = sprite.boxes()[0]
            assert enters or (min(x0, y0) >= -1e-9 and max(x1, y1) <= 64 + 1e-9)
    assert 0.08 < crossed / COUNT < 0.22


def test_colors_differ_and_motion_is_smooth(scenes):
    speeds = []
    for scene in scenes:
        colors = [sprite.color for sprite in scene.sprites]
        assert len(set(colors)) == len(colors)
        for sprite in scene.sprites:
            velocity_F2 = np.diff(sprite.center_F2, axis=0)
            speeds.append(np.hypot(*velocity_F2.T))
            assert np.hypot(*np.diff(velocity_F2, axis=0).T).max() < 3
            assert np.abs(np.diff(sprite.angle_F)).max() <= 0.15 + 1e-9
            own_radius_F = sprite.radius_F / scene.camera.zoom_F
            assert 0.7 - 1e-9 <= own_radius_F[-1] / own_radius_F[0] <= 1.4 + 1e-9
    speeds = np.concatenate(speeds)
    assert np.mean((speeds >= 0.5) & (speeds <= 3.5)) > 0.75
    still = [sprite.is_still for scene in scenes for sprite in scene.sprites]
    assert 0.1 < np.mean(still) < 0.2


def test_other_sizes_scale_the_scene():
    small, large = SpritesConfig(), SpritesConfig(height=128, width=128, num_frames=33)
    for index in range(20):
        a = Sprites(20, config=small).scene(index)
        b = Sprites(20, config=large).scene(index)
        for one, other in zip(a.sprites, b.sprites, strict=True):
            np.testing.assert_allclose(other.center_F2[::2], 2 * one.center_F2, atol=1e-9)
            np.testing.assert_allclose(other.boxes()[::2], 2 * one.boxes(), atol=1e-9)


def test_smooth_path_passes_through_its_points_without_kinks():
    points_N2 = np.array([[0.0, 0.0], [3.0, 5.0], [4.0, -2.0], [9.0, 1.0]])
    np.testing.assert_allclose(smooth_path(points_N2, np.arange(4.0)), points_N2, atol=1e-12)
    fine_F2 = smooth_path(points_N2, np.linspace(0, 3, 3001))
    velocity_F2 = np.diff(fine_F2, axis=0) * 1000
    assert np.abs(np.diff(velocity_F2, axis=0)).max() < 0.1
    # Between the ends, the tangent at a point is half the way from the one before to the next.
    np.testing.assert_allclose(velocity_F2[1000], (points_N2[2] - points_N2[0]) / 2, atol=0.05)


def test_smooth_path_of_points_on_a_line_is_the_line():
    times = np.linspace(0, 2, 9)
    path_F2 = smooth_path(np.array([[0.0, 1.0], [2.0, 5.0], [4.0, 9.0]]), times)
    np.testing.assert_allclose(path_F2, np.stack([2 * times, 1 + 4 * times], axis=1), atol=1e-12)
