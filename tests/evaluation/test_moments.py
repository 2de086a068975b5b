from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.bootstrap import interval
from flashmotion_jax.evaluation.frechet import frechet_distance, frechet_of_pairs
from flashmotion_jax.evaluation.moments import Moments, distance_of_moments, distance_of_videos


def videos(seed=0, count=40, frames=5, dim=6, shift=0.3):
    """Features [N, 2, F, D] of generated videos and their real ones."""
    rng = np.random.default_rng(seed)
    contents = rng.normal(size=(count, 1, 1, dim)) @ rng.normal(size=(dim, dim))
    real = contents + 0.3 * rng.normal(size=(count, 1, frames, dim))
    generated = 0.9 * contents + shift + 0.4 * rng.normal(size=(count, 1, frames, dim))
    return np.concatenate([generated, real], axis=1)


def reader(pairs):
    return lambda i: (pairs[i, 0], pairs[i, 1])


def test_moments_in_parts_and_in_any_order_are_those_of_the_whole():
    rows = 100 + np.random.default_rng(1).normal(size=(50, 4))
    parts = [Moments.of(part) for part in np.split(rows, [1, 8, 30])]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        found = sum((parts[i] for i in order), Moments.none(4))
        assert found.count == 50
        np.testing.assert_allclose(found.mean_D, rows.mean(axis=0))
        np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), atol=1e-12)


def test_the_distance_of_videos_is_that_of_all_their_frames():
    pairs = videos()
    distance, values = distance_of_videos(reader(pairs), len(pairs))
    assert distance == pytest.approx(frechet_of_pairs(pairs))
    assert values.shape == (40,) and values.mean() == pytest.approx(distance)


def test_equal_videos_have_the_distance_0_without_an_interval():
    pairs = videos()
    pairs[:, 0] = pairs[:, 1]
    distance, values = distance_of_videos(reader(pairs), len(pairs))
    assert distance == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(values, 0, atol=1e-6)


def test_values_are_the_derivatives_by_a_videos_weight():
    pairs = videos(count=30)
    distance, values = distance_of_videos(reader(pairs), 30)
    # Many copies of all, and one more of video 7.
    copies = 400
    more = np.concatenate([np.repeat(pairs, copies, axis=0), pairs[7:8]])
    rows = more[:, 0].reshape(-1, 6), more[:, 1].reshape(-1, 6)
    change = frechet_distance(*rows) - frechet_distance(
        *(np.repeat(pairs, copies, axis=0)[:, side].reshape(-1, 6) for side in range(2))
    )
    assert change * (30 * copies + 1) == pytest.approx(values[7] - distance, rel=0.02)


def test_intervals_are_about_those_of_drawing_again():
    pairs = videos(seed=2, count=120)
    _, values = distance_of_videos(reader(pairs), len(pairs))
    fast, slow = interval(values), interval(pairs, frechet_of_pairs, resamples=300)
    assert fast.estimate == pytest.approx(slow.estimate)
    assert fast.high - fast.low == pytest.approx(slow.high - slow.low, rel=0.25)


def test_fewer_rows_than_features():
    pairs = videos(count=4, frames=2, dim=24)
    distance, values = distance_of_videos(reader(pairs), 4)
    assert distance == pytest.approx(frechet_of_pairs(pairs))
    assert np.isfinite(values).all()
    assert values.mean() == pytest.approx(distance)


def test_too_little():
    pairs = videos(count=1, frames=1)
    distance, values = distance_of_videos(reader(pairs), 1)
    assert np.isnan(distance) and np.isnan(values).all()
    with pytest.raises(ValueError, match="at least two rows"):
        distance_of_moments(Moments.none(3), Moments.none(3))
    with pytest.raises(ValueError, match="expected rows"):
        Moments.of(np.zeros(3))
