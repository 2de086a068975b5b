from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.trajectory import EASINGS, Keyframe
from flashmotion_jax.trajectory.keyframes import interpolate, keyframes_from_boxes

START, END = (0.0, 0.0, 0.2, 0.2), (1.0, 0.5, 1.2, 0.7)


@pytest.mark.parametrize(
    ("ease", "quarter"),
    [("linear", 0.25), ("smooth", 0.15625), ("hold", 0.0), ("in", 0.0625), ("out", 0.4375)],
)
def test_easing(ease: str, quarter: float):
    keyframes = (Keyframe(10, START, ease), Keyframe(50, END))
    boxes = interpolate(keyframes, np.array([0, 10, 20, 50, 99]))
    expected = np.array(START) + quarter * (np.array(END) - START)
    np.testing.assert_allclose(boxes, [START, START, expected, END, END], atol=1e-15)


@pytest.mark.parametrize("ease", sorted(set(EASINGS) - {"hold"}))
def test_easings_are_monotone_from_0_to_1(ease: str):
    way = [EASINGS[ease](u) for u in np.linspace(0, 1, 101)]
    assert way[0] == 0
    assert way[-1] == 1
    assert (np.diff(way) > 0).all()


def test_keyframes_from_boxes_stay_within_the_tolerance_and_are_few():
    frames = np.arange(121)
    time = frames / 120
    x0 = np.where(time < 0.5, time, 0.5)
    boxes = np.stack([x0, time**2, x0 + 0.1, time**2 + 0.1], axis=1)
    keyframes = keyframes_from_boxes(frames, boxes, np.full(4, 1e-3))
    assert np.abs(interpolate(keyframes, frames) - boxes).max() <= 1e-3
    assert 60 in [keyframe.frame for keyframe in keyframes]
    assert len(keyframes) < 30


def test_keyframes_of_straight_motion_and_of_one_frame():
    boxes = np.linspace([0.0] * 4, [1.0] * 4, 11)
    straight = keyframes_from_boxes(np.arange(11), boxes, np.full(4, 1e-6))
    assert [keyframe.frame for keyframe in straight] == [0, 10]
    assert keyframes_from_boxes(np.array([3]), boxes[:1], np.full(4, 1e-6)) == (
        Keyframe(3, (0.0, 0.0, 0.0, 0.0)),
    )
