from __future__ import annotations

import cv2
import numpy as np
import pytest

from flashmotion_jax.trajectory.drawing import draw_box, paint_masks, stroke_radius


@pytest.mark.parametrize("thickness", range(1, 21))
def test_draw_box_equals_opencv(thickness: int):
    # The smallest size that asks for this thickness decides the radius; any picture shows it.
    radius = stroke_radius(100 * thickness, 100 * thickness)
    rng = np.random.default_rng(thickness)
    for trial in range(400):
        height, width = rng.integers(1, 90, 2).tolist()
        x0, x1 = np.sort(rng.integers(-60, width + 60, 2)).tolist()
        y0, y1 = np.sort(rng.integers(-60, height + 60, 2)).tolist()
        if trial % 5 == 0:
            x1 = x0
        if trial % 7 == 0:
            y1 = y0
        expected = np.zeros((height, width, 3), np.uint8)
        cv2.rectangle(expected, (x0, y0), (x1, y1), (1, 2, 3), thickness=thickness)
        drawn = np.zeros_like(expected)
        draw_box(drawn, (x0, y0, x1, y1), (1, 2, 3), radius)
        np.testing.assert_array_equal(drawn, expected)


def test_stroke_widths_measured_in_magicmotions_videos():
    assert 2 * stroke_radius(864, 1280) + 1 == 9
    assert 2 * stroke_radius(480, 720) + 1 == 5
    assert 2 * stroke_radius(704, 1280) + 1 == 9
    assert stroke_radius(64, 64) == 0


def test_small_masks_are_painted_over_large_ones():
    large, small = np.ones((4, 4), bool), np.eye(4, dtype=bool)
    for masks, colors in [
        ([small, large], [(1, 1, 1), (2, 2, 2)]),
        ([large, small], [(2, 2, 2), (1, 1, 1)]),
    ]:
        frame = paint_masks(np.array(masks), colors, (4, 4))
        np.testing.assert_array_equal(frame[..., 0], 2 - np.eye(4))


def test_a_stroke_is_what_a_disc_covers_that_moves_along_the_box():
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width, radius = rng.integers([1, 1, 0], [50, 50, 6]).tolist()
        x0, x1 = sorted(rng.integers(-30, 80, 2).tolist())
        y0, y1 = sorted(rng.integers(-30, 80, 2).tolist())
        frame = np.zeros((height, width, 3), np.uint8)
        draw_box(frame, (x0, y0, x1, y1), (1, 2, 3), radius)
        y, x = np.arange(height)[:, None], np.arange(width)[None, :]
        outside = np.maximum(np.maximum(y0 - y, y - y1), 0) ** 2
        outside = outside + np.maximum(np.maximum(x0 - x, x - x1), 0) ** 2
        inner = (y > y0 + radius) & (y < y1 - radius) & (x > x0 + radius) & (x < x1 - radius)
        np.testing.assert_array_equal(frame[..., 0] == 1, (outside <= radius**2) & ~inner)


def test_rectangles_and_their_masks_are_painted_alike():
    rng = np.random.default_rng(0)
    edges = np.sort(rng.integers(0, 30, (9, 2, 2)), axis=-1).tolist()
    rectangles = [(slice(*rows), slice(*columns)) for rows, columns in edges]
    masks = np.zeros((9, 30, 30), bool)
    for mask, rectangle in zip(masks, rectangles, strict=True):
        mask[rectangle] = True
    colors = [(k + 1, 2 * k, 3 * k) for k in range(9)]
    expected = paint_masks(masks, colors, (30, 30))
    np.testing.assert_array_equal(paint_masks(rectangles, colors, (30, 30)), expected)
