"""Which frames a sparse adapter knows, and the maps that it is given."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.inference.known_frames import drawn_throughout, know_some_frames
from flashmotion_jax.trajectory import Canvas, Keyframe, TrackedObject, Trajectory, render

KEYS = (Keyframe(0, (0.1, 0.1, 0.4, 0.4)), Keyframe(6, (0.5, 0.5, 0.9, 0.9)))


def trajectory(**changes):
    return Trajectory(Canvas(16, 16), 17, 8.0, (TrackedObject(1, KEYS),), **changes)


def know(motion, choice=None):
    maps = motion
    if isinstance(motion, Trajectory):
        maps = render(drawn_throughout(motion), 16, 16)
    hidden, known = know_some_frames([motion], maps[None], choice, 4)
    return maps, hidden[0], np.flatnonzero(known[0]).tolist()


@pytest.mark.parametrize(
    ("changes", "choice", "expected"),
    [
        ({}, None, [0, 2]),  # its keyframes, 0 and 6; frame 6 is in the latent frame of 5 to 8
        ({"sparse_frames": (3, 12)}, None, [0, 1, 3]),
        ({}, "all", [0, 1, 2, 3, 4]),
        ({}, (16,), [4]),
        ({}, (0, 1, 4, 5), [0, 1, 2]),
    ],
)
def test_frames_of_a_trajectory(changes, choice, expected):
    maps, hidden, known = know(trajectory(**changes), choice)
    assert known == expected
    wanted = np.zeros_like(maps)
    for frame in expected:
        wanted[4 * frame] = maps[4 * frame]
    np.testing.assert_array_equal(hidden, wanted)


def test_maps_are_known_where_they_are_not_black():
    maps = render(trajectory(), 16, 16)
    maps[7:] = 0
    maps, hidden, known = know(maps)
    assert known == [0, 1, 2]
    np.testing.assert_array_equal(hidden[8], maps[6])  # the last that is drawn of frames 5 to 8
    np.testing.assert_array_equal(hidden[4], maps[4])


@pytest.mark.parametrize(
    ("choice", "found"),
    [((0, 17), "frame 17"), ((-1,), "frame -1"), ((0.5,), "frame 0.5"), ((), "none")],
)
def test_other_frames_are_one_clear_line(choice, found):
    message = f"known_frames: {found}; expected frames of the video, whole numbers from 0 to 16"
    with pytest.raises(ValueError, match=message):
        know(trajectory(), choice)
