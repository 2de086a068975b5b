from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.trajectory import Canvas, Tracks, boxes_from_tracks, tracks_from_boxes


def tracks(num_points: int = 2) -> Tracks:
    x = np.linspace(20, 80, 13)[:, None] + 10 * np.arange(num_points)
    points = np.stack([x, np.full_like(x, 30)], axis=-1)
    return Tracks(points, np.ones(points.shape[:2], bool))


def test_boxes_are_centered_on_the_points():
    trajectory = boxes_from_tracks(tracks(), Canvas(100, 50), box_size=(20, 10))
    pixels = trajectory.boxes() * [100, 50, 100, 50]
    np.testing.assert_allclose(pixels[0, 0], [10, 25, 30, 35])
    np.testing.assert_allclose(pixels[1, -1], [80, 25, 100, 35])
    assert [len(item.keyframes) for item in trajectory.objects] == [2, 2]
    back = tracks_from_boxes(trajectory)
    np.testing.assert_allclose(back.points_FN2, tracks().points_FN2)
    assert back.visible_FN.all()


def test_hidden_points_are_bridged():
    hidden = tracks(1)
    hidden.visible_FN[3:6] = False
    hidden.points_FN2[3:6] = np.nan
    trajectory = boxes_from_tracks(hidden, Canvas(100, 50), box_size=(20, 10))
    np.testing.assert_allclose(
        tracks_from_boxes(trajectory).points_FN2, tracks(1).points_FN2, atol=1e-9
    )


def test_points_outside_the_canvas_are_not_visible():
    trajectory = boxes_from_tracks(tracks(), Canvas(62, 50), box_size=(20, 10))
    visible = tracks_from_boxes(trajectory).visible_FN
    np.testing.assert_array_equal(visible, tracks().points_FN2[..., 0] < 62)


def test_any_number_of_tracks_gets_colors_of_their_own():
    trajectory = boxes_from_tracks(tracks(300), Canvas(3100, 50), box_size=(8, 8))
    assert len({item.rgb for item in trajectory.objects}) == 300
    assert trajectory == boxes_from_tracks(tracks(300), Canvas(3100, 50), box_size=(8, 8))


def test_wrong_tracks():
    points, visible = np.zeros((3, 2, 2)), np.ones((3, 2), bool)
    with pytest.raises(ValueError, match="expected \\[frames, points, 2\\]"):
        Tracks(points[0], visible)
    with pytest.raises(ValueError, match="visibility"):
        Tracks(points, visible[:2])
    with pytest.raises(ValueError, match="NaN"):
        Tracks(points * np.nan, visible)
    with pytest.raises(ValueError, match="track 0 is never visible"):
        boxes_from_tracks(Tracks(points, ~visible), Canvas(9, 9), box_size=(1, 1))
    with pytest.raises(ValueError, match="box_size"):
        boxes_from_tracks(Tracks(points, visible), Canvas(9, 9), box_size=(0, 1))
    many = np.zeros((1, 10_000, 2))
    with pytest.raises(ValueError, match="10000 tracks, expected at most 9999"):
        boxes_from_tracks(Tracks(many, many[..., 0] == 0), Canvas(9, 9), box_size=(1, 1))
