"""ATE of masks that follow a path, are shifted from it, late on it, or missing."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.metrics.base import Frame
from flashmotion_jax.evaluation.metrics.trajectory_error import (
    AverageTrajectoryError,
    RelativeTrajectoryError,
)

HEIGHT, WIDTH, FRAMES, SPEED = 48, 64, 6, 4
DIAGONAL = np.hypot(HEIGHT, WIDTH)


def frames(shift=(0, 0), delay=0, missing=()):
    """A square of 9 x 9 pixels, whose requested center moves to the right."""
    for f in range(FRAMES):
        center = np.array([10 + SPEED * f, 20]) + 0.5
        mask = np.zeros((1, HEIGHT, WIDTH), bool)
        if f not in missing:
            x, y = (center - 0.5 + shift - [delay * SPEED, 0]).astype(int)
            mask[0, y - 4 : y + 5, x - 4 : x + 5] = True
        yield Frame(mask[0], masks=mask, requested_points=center[None] / [WIDTH, HEIGHT])


def ate(*given, metric=AverageTrajectoryError, **options):
    one = metric()
    for frame in frames(*given, **options):
        one.add(frame)
    numerator, denominator = metric.total(one.values(), first=1)
    return numerator / denominator


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0),
        ({"shift": (3, 4)}, 5),
        ({"delay": 1}, SPEED),
        ({"missing": range(FRAMES)}, DIAGONAL / 2),
        ({"missing": (0,)}, 0),  # frame 0 is given
        ({"missing": (5,)}, DIAGONAL / 2 / 5),
    ],
)
def test_ate_is_the_mean_distance_in_pixels_and_of_the_diagonal(options, expected):
    assert ate(**options) == pytest.approx(expected, abs=1e-9)
    relative = ate(metric=RelativeTrajectoryError, **options)
    assert relative == pytest.approx(expected / DIAGONAL, abs=1e-9)


@pytest.mark.parametrize("point", [(-0.01, 0.5), (0.5, 1.0), (np.nan, np.nan)])
def test_points_outside_and_hidden_ones_do_not_count(point):
    masks = np.ones((1, HEIGHT, WIDTH), bool)
    assert np.isnan(AverageTrajectoryError().measure(masks, np.array([point]))).all()
