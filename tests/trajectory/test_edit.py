from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from flashmotion_jax.trajectory import (
    Canvas,
    Keyframe,
    TrackedObject,
    Trajectory,
    hold,
    move,
    pan,
    scale,
    zoom,
)

# Keyframes found for a dense motion may be a tenth of a pixel off.
TOLERANCE = 0.1 / 100


def trajectory() -> Trajectory:
    still = TrackedObject(3, (Keyframe(0, (0.1, 0.2, 0.3, 0.6)),), "still")
    ways = Keyframe(0, (0.5, 0.5, 0.7, 0.7)), Keyframe(10, (0.0, 0.5, 0.2, 0.7))
    return Trajectory(Canvas(100, 100), 11, 24.0, (still, TrackedObject(5, ways, "moving")))


def test_move_adds_to_the_motion_and_lasts():
    before, after = trajectory().boxes(), move(trajectory(), 5, 0.2, -0.1, start=2, end=6).boxes()
    np.testing.assert_array_equal(after[0], before[0])
    way = np.clip((np.arange(11) - 2) / 4, 0, 1)[:, None] * [0.2, -0.1, 0.2, -0.1]
    np.testing.assert_allclose(after[1], before[1] + way, atol=TOLERANCE)


def test_move_eases_and_holds_until_the_end():
    smooth = move(trajectory(), 3, 1.0, 0.0, ease="smooth").boxes()[0, :, 0] - 0.1
    u = np.arange(11) / 10
    np.testing.assert_allclose(smooth, 3 * u**2 - 2 * u**3, atol=TOLERANCE)
    late = move(trajectory(), 3, 1.0, 0.0, start=2, end=5, ease="hold").boxes()[0, :, 0] - 0.1
    np.testing.assert_allclose(late, np.arange(11) >= 5, atol=TOLERANCE)


def test_scale_keeps_the_center():
    after = scale(trajectory(), 3, 2.0, end=4).boxes()[0]
    np.testing.assert_allclose(after[0], [0.1, 0.2, 0.3, 0.6], atol=TOLERANCE)
    np.testing.assert_allclose(after[4:], [[0.0, 0.0, 0.4, 0.8]] * 7, atol=TOLERANCE)


def test_pan_and_zoom_change_every_object():
    before = trajectory().boxes()
    panned = pan(trajectory(), 0.0, 0.3).boxes()
    np.testing.assert_allclose(panned[:, -1] - before[:, -1], [[0, 0.3, 0, 0.3]] * 2, atol=1e-9)
    zoomed = zoom(trajectory(), 2.0, center=(0.1, 0.2)).boxes()[:, -1]
    expected = [[0.1, 0.2, 0.5, 1.0], [-0.1, 0.8, 0.3, 1.2]]
    np.testing.assert_allclose(zoomed, expected, atol=TOLERANCE)


def test_hold_stops_and_arrives_on_time():
    x0 = hold(trajectory(), 5, 2, 6).boxes()[1, :, 0]
    expected = [0.5, 0.45, 0.4, 0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0.0]
    np.testing.assert_allclose(x0, expected, atol=TOLERANCE)
    waits = hold(trajectory(), 5, 0, 5).boxes()[1, :, 0]
    np.testing.assert_allclose(waits, np.minimum(0.5, 1 - np.arange(11) / 10), atol=TOLERANCE)
    rest = hold(trajectory(), 5, 8, 10).boxes()[1, :, 0]
    np.testing.assert_allclose(rest[8:], 0.1, atol=TOLERANCE)


def test_the_original_names_and_masks_are_unchanged():
    original = trajectory()
    moved = move(original, 5, 0.1, 0.1)
    assert original == trajectory()
    assert [item.name for item in moved.objects] == ["still", "moving"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: move(t, 4, 0, 0), r"expected one of \[3, 5\]"),
        (lambda t: move(t, 3, 0, 0, ease="fast"), "ease='fast'"),
        (lambda t: move(t, 3, 0, 0, start=4, end=4), "start < end"),
        (lambda t: pan(t, 0, 0, end=11), "<= 10"),
        (lambda t: scale(t, 3, -1), "factor=-1"),
        (lambda t: zoom(t, float("nan")), "factor=nan"),
        (lambda t: hold(t, 3, -1, 4), "start=-1"),
        (lambda t: move(t, 3, 99, 0), r"objects\[0\]\.keyframes\[1\]\.box"),
    ],
)
def test_wrong_arguments(change: Callable[[Trajectory], Trajectory], message: str):
    with pytest.raises(ValueError, match=message):
        change(trajectory())
