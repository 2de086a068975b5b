"""Outlines against OpenCV's distance to a polygon, and boxes against points that lie inside."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.data.sprites.shapes import SHAPES

GRID = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, 131)] * 2), axis=-1)
ROUNDED = [name for name, shape in SHAPES.items() if len(shape.corners) > 2]


def distances(name):
    return SHAPES[name].distance(GRID[..., 0], GRID[..., 1])


@pytest.mark.parametrize("name", ROUNDED)
def test_distance_to_a_polygon_is_opencvs(name):
    cv2 = pytest.importorskip("cv2")
    corners = np.array(SHAPES[name].corners, np.float32)
    points = GRID.reshape(-1, 2).tolist()
    expected = [-cv2.pointPolygonTest(corners, tuple(point), True) for point in points]
    actual = distances(name).ravel() + SHAPES[name].rounding
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_distance_to_a_circle_and_a_ring():
    from_middle = np.hypot(GRID[..., 0], GRID[..., 1])
    np.testing.assert_allclose(distances("circle"), from_middle - 1, atol=1e-12)
    inner, outer = 1 - SHAPES["ring"].wall, 1
    expected = np.maximum(from_middle - outer, inner - from_middle)
    np.testing.assert_allclose(distances("ring"), expected, atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_fill_the_circle_of_radius_1_and_stay_inside(name):
    from_middle = np.hypot(GRID[..., 0], GRID[..., 1])
    assert distances(name)[from_middle > 1.01].min() > 0
    assert from_middle[distances(name) <= 0].max() > 0.95


@pytest.mark.parametrize("name", SHAPES)
def test_boxes_are_tight_around_the_outline_at_any_pose(name):
    center_F2, radius_F = np.array([[3.0, -1.5], [0.0, 40.25]]), np.array([7.5, 20.0])
    angle_F = np.array([0.4, -2.0])
    boxes_F4 = SHAPES[name].boxes(center_F2, radius_F, angle_F)
    for box, center, radius, angle in zip(boxes_F4, center_F2, radius_F, angle_F, strict=True):
        own = GRID[distances(name) <= 0]
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        points = own @ turn * radius + center
        expected = np.concatenate([points.min(axis=0), points.max(axis=0)])
        np.testing.assert_allclose(box, expected, atol=0.025 * radius)
