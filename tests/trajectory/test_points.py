"""Points: as data, drawn as Gaussians, and from and to point tracks."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest

from flashmotion_jax.trajectory import (
    Canvas,
    Keyframe,
    Mask,
    TrackedObject,
    Tracks,
    Trajectory,
    hold,
    load_maps,
    move,
    points_from_tracks,
    render,
    tracks_from_boxes,
)
from flashmotion_jax.trajectory.drawing import draw_point
from flashmotion_jax.trajectory.formats import ImportOptions, read_trajectory, write_wan_move
from flashmotion_jax.trajectory.validation import find_problems

CANVAS = Canvas(64, 48)
PATH = ((0.25, 0.5), (0.5, 0.5), None, (0.75, 0.5), (1.5, 0.5))
POINT = TrackedObject(1, color="#ff8000", points=PATH)


def trajectory(*objects):
    return Trajectory(CANVAS, 5, 8.0, objects or (POINT,))


def test_a_point_is_a_gaussian_of_its_color():
    maps = render(trajectory(), 48, 64, "points", point_sigma=1 / 12)  # sigma: 4 pixels
    y, x = np.mgrid[:48, :64] + 0.5
    for frame, center in ((0, 16), (1, 32), (3, 48)):
        weight = np.exp(-((x - center) ** 2 + (y - 24) ** 2) / 32)
        expected = np.rint(weight[..., None] * [255, 128, 0])
        np.testing.assert_array_equal(maps[frame], expected)
    # Hidden, and outside of the canvas.
    assert not maps[[2, 4]].any()


def test_overlaps_do_not_depend_on_the_order():
    frames = np.zeros((2, 48, 64, 3), np.uint8)
    points = [((20, 20), (255, 0, 0)), ((23, 21), (100, 255, 0)), ((30, 20), (0, 0, 255))]
    for frame, order in zip(frames, (points, points[::-1]), strict=True):
        for point, color in order:
            draw_point(frame, point, color, 4.0)
    np.testing.assert_array_equal(frames[0], frames[1])
    assert frames[0, 20, 20, 0] > 250


def test_frame_0_shows_masks_and_the_centers_of_boxes_follow():
    mask = np.zeros((48, 64), bool)
    mask[10:20, 8:24] = True
    keyframes = (Keyframe(0, (0.1, 0.1, 0.3, 0.5)), Keyframe(4, (0.6, 0.1, 0.8, 0.5)))
    boxed = TrackedObject(2, keyframes, color="#0000ff", mask=Mask.from_array(mask))
    maps = render(trajectory(POINT, boxed), 48, 64, "points", point_sigma=1 / 12)
    np.testing.assert_array_equal(maps[0, ..., 2] > 200, mask)
    assert maps[0, 24, 16, 0] > 200  # a point has no mask
    peak = np.unravel_index(maps[2, ..., 2].argmax(), (48, 64))
    assert abs(peak[0] + 0.5 - 0.3 * 48) <= 0.5 and abs(peak[1] + 0.5 - 0.45 * 64) <= 0.5


def test_files_and_stretching(tmp_path):
    trajectory().save(tmp_path / "trajectory.json")
    assert Trajectory.load(tmp_path / "trajectory.json") == trajectory()
    shown = trajectory().shown(9)
    np.testing.assert_array_equal(shown[0], [1, 1, 1, 0, 0, 0, 1, 1, 1])
    expected = [0.25, 0.375, 0.5, 0.5625, 0.625, 0.6875, 0.75, 1.125, 1.5]
    np.testing.assert_allclose(trajectory().boxes(9)[0, :, 0], expected)
    assert trajectory().known().all()


def test_editing_moves_points():
    moved = move(trajectory(), 1, 0.1, 0.2, end=1)
    first, second, third, fourth, _ = moved.objects[0].points
    assert first == PATH[0] and third is None
    np.testing.assert_allclose([second, fourth], [(0.6, 0.7), (0.85, 0.7)])
    held = hold(trajectory(), 1, 0, 1)
    assert held.objects[0].points[1] == PATH[0]


GOOD: dict[str, Any] = {
    "version": 1,
    "canvas": {"width": 64, "height": 48},
    "num_frames": 3,
    "fps": 8,
    "objects": [{"id": 1, "points": [[0, 0.5], None, [1, 0.5]]}],
}


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ([[0, 0.5]], "points: 1, expected 3, one a frame; null where it is hidden"),
        ([None] * 3, "points: outside the canvas on every frame; divide pixels"),
        ([[5, 5], None, [2, 0]], "points: outside the canvas on every frame; divide pixels"),
        ([[200, 5], None, [2, 0]], "expected [x, y] for each frame, as fractions"),
        ([[0.5], None, None], "expected [x, y] for each frame, as fractions"),
        ([[0.5, float("nan")], None, None], "expected [x, y] for each frame, as fractions"),
        ([[0.5, "0"], None, None], "expected [x, y] for each frame, as fractions"),
        ("all", "expected [x, y] for each frame, as fractions"),
    ],
)
def test_problems_of_points_are_found(points, problem):
    assert find_problems(GOOD) == []
    data = copy.deepcopy(GOOD)
    data["objects"][0]["points"] = points
    assert problem in " ".join(find_problems(data))


def test_an_object_follows_boxes_or_points():
    data = copy.deepcopy(GOOD)
    data["objects"][0]["keyframes"] = [{"frame": 0, "box": [0, 0, 1, 1]}]
    assert "expected keyframes, which have boxes, or points, and not both" in find_problems(data)[0]
    data["objects"][0] = {"id": 1}
    assert "expected keyframes, which have boxes, or points, and not both" in find_problems(data)[0]


def tracks():
    points = np.array([[[16, 24], [60, 40]], [[32, 24], [62, 40]], [[48, 24], [70, 40]]], float)
    return Tracks(points, np.array([[1, 1], [1, 1], [0, 1]], bool))


def test_tracks_become_points_and_back_exactly():
    made = points_from_tracks(tracks(), CANVAS)
    assert made.objects[0].points == ((0.25, 0.5), (0.5, 0.5), None)
    back = tracks_from_boxes(made)
    np.testing.assert_array_equal(back.visible_FN, [[1, 1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(
        back.points_FN2[back.visible_FN], tracks().points_FN2[back.visible_FN]
    )


def test_files_of_tracks_are_points_for_a_model_of_points(tmp_path):
    write_wan_move(tracks(), tmp_path / "tracks.npy", tmp_path / "visibility.npy")
    read = {
        kind: read_trajectory(tmp_path, ImportOptions(CANVAS, map_kind=kind)).trajectory.objects
        for kind in ("points", "box")
    }
    assert read["points"] == points_from_tracks(tracks(), CANVAS).objects
    assert all(item.points is None and item.keyframes for item in read["box"])
    size = {"num_frames": 3, "height": 48, "width": 64, "point_sigma": 1 / 12}
    maps = load_maps(tmp_path, map_kind="points", canvas=CANVAS, **size)
    np.testing.assert_array_equal(
        maps, render(points_from_tracks(tracks(), CANVAS), 48, 64, "points", point_sigma=1 / 12)
    )
    with pytest.warns(UserWarning, match="objects 1, 2 follow points, which have no size"):
        load_maps(points_from_tracks(tracks(), CANVAS), map_kind="box", **size)
    with warnings.catch_warnings(action="error"):
        load_maps(points_from_tracks(tracks(), CANVAS), map_kind="points", **size)


def test_a_track_outside_is_one_clear_line():
    outside = Tracks(tracks().points_FN2 + 100, tracks().visible_FN)
    with pytest.raises(ValueError, match="track 0 is outside the image of 64 x 48 pixels on every"):
        points_from_tracks(outside, CANVAS)
