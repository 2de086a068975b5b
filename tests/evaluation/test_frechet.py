from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.bootstrap import interval
from flashmotion_jax.evaluation.frechet import (
    Moments,
    frechet_distance,
    frechet_of_moments,
    frechet_of_pairs,
    frechet_of_videos,
)


def with_moments(mean, covariance, count=200, seed=0):
    """Rows with exactly this sample mean and covariance."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    rows -= rows.mean(axis=0)
    whitener = np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(rows, rowvar=False))))
    return rows @ whitener.T @ np.linalg.cholesky(covariance).T + mean


def test_gaussians_with_covariances_that_commute():
    mean_a, mean_b = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    deviations_a, deviations_b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    a = with_moments(mean_a, turn @ np.diag(deviations_a**2) @ turn.T)
    b = with_moments(mean_b, turn @ np.diag(deviations_b**2) @ turn.T, 300, 1)
    expected = np.sum((mean_a - mean_b) ** 2) + np.sum((deviations_a - deviations_b) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_one_feature():
    a, b = with_moments([1.0], [[4.0]]), with_moments([3.0], [[9.0]], seed=1)
    assert frechet_distance(a, b) == pytest.approx(4 + 1)


def test_matches_the_matrix_root_of_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(6)
    a = rng.normal(size=(90, 20)) @ rng.normal(size=(20, 20))
    b = rng.normal(size=(70, 20)) @ rng.normal(size=(20, 20)) + 0.3
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_fewer_videos_than_features():
    rng = np.random.default_rng(7)
    a = rng.normal(size=(10, 64))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, a + 0.5) == pytest.approx(64 * 0.25, rel=1e-6)


def test_float32_features_are_computed_in_float64():
    rng = np.random.default_rng(8)
    a = (1000 + rng.normal(size=(50, 8))).astype(np.float32)
    assert frechet_distance(a, a + np.float32(1)) == pytest.approx(8, rel=1e-6)


@pytest.mark.parametrize("shape", [(5, 3), (1, 4), (4,)])
def test_features_of_other_shapes_raise(shape):
    with pytest.raises(ValueError, match=r"expected \[N, D\] and \[M, D\]"):
        frechet_distance(np.zeros(shape), np.zeros((5, 4)))


def test_features_that_are_not_finite_raise():
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.full((3, 2), np.nan), np.zeros((3, 2)))


def test_pairs_with_frames_are_pooled():
    pairs = np.random.default_rng(9).normal(size=(6, 2, 5, 3))
    expected = frechet_distance(pairs[:, 0].reshape(30, 3), pairs[:, 1].reshape(30, 3))
    assert frechet_of_pairs(pairs) == expected
    for shape in ((6, 3), (6, 3, 4)):
        with pytest.raises(ValueError, match=r"expected \[N, 2, ..., D\]"):
            frechet_of_pairs(np.zeros(shape))


def videos(seed=0, count=40, frames=5, dim=6, shift=0.3):
    """Features [N, 2, F, D] of generated videos and their real ones."""
    rng = np.random.default_rng(seed)
    contents = rng.normal(size=(count, 1, 1, dim)) @ rng.normal(size=(dim, dim))
    real = contents + 0.3 * rng.normal(size=(count, 1, frames, dim))
    generated = 0.9 * contents + shift + 0.4 * rng.normal(size=(count, 1, frames, dim))
    return np.concatenate([generated, real], axis=1)


def reader(pairs):
    return lambda i: (pairs[i, 0], pairs[i, 1])


def test_moments_add_up_in_any_order():
    rows = 100 + np.random.default_rng(1).normal(size=(50, 4))
    parts = [Moments.of(part) for part in np.split(rows, [1, 8, 30])]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        found = sum((parts[i] for i in order), Moments.none(4))
        assert found.count == 50
        np.testing.assert_allclose(found.mean_D, rows.mean(axis=0))
        np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), atol=1e-12)


def test_the_distance_of_videos_pools_their_frames():
    pairs = videos()
    distance, values = frechet_of_videos(reader(pairs), len(pairs))
    assert distance == pytest.approx(frechet_of_pairs(pairs))
    assert values.shape == (40,) and values.mean() == pytest.approx(distance)


def test_equal_videos_have_the_distance_0_without_an_interval():
    pairs = videos()
    pairs[:, 0] = pairs[:, 1]
    distance, values = frechet_of_videos(reader(pairs), len(pairs))
    assert distance == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(values, 0, atol=1e-6)


def test_contributions_are_derivatives_with_respect_to_weights():
    pairs = videos(count=30)
    distance, values = frechet_of_videos(reader(pairs), 30)
    # Many copies of all videos, and one more of video 7.
    copies = 400
    more = np.concatenate([np.repeat(pairs, copies, axis=0), pairs[7:8]])
    rows = more[:, 0].reshape(-1, 6), more[:, 1].reshape(-1, 6)
    change = frechet_distance(*rows) - frechet_distance(
        *(np.repeat(pairs, copies, axis=0)[:, side].reshape(-1, 6) for side in range(2))
    )
    assert change * (30 * copies + 1) == pytest.approx(values[7] - distance, rel=0.02)


def test_intervals_are_close_to_those_of_a_full_bootstrap():
    pairs = videos(seed=2, count=120)
    _, values = frechet_of_videos(reader(pairs), len(pairs))
    fast, slow = interval(values), interval(pairs, frechet_of_pairs, resamples=300)
    assert fast.estimate == pytest.approx(slow.estimate)
    assert fast.high - fast.low == pytest.approx(slow.high - slow.low, rel=0.25)


def test_fewer_rows_than_features():
    pairs = videos(count=4, frames=2, dim=24)
    distance, values = frechet_of_videos(reader(pairs), 4)
    assert distance == pytest.approx(frechet_of_pairs(pairs))
    assert np.isfinite(values).all()
    assert values.mean() == pytest.approx(distance)


def test_too_few_rows():
    pairs = videos(count=1, frames=1)
    distance, values = frechet_of_videos(reader(pairs), 1)
    assert np.isnan(distance) and np.isnan(values).all()
    with pytest.raises(ValueError, match="at least two rows"):
        frechet_of_moments(Moments.none(3), Moments.none(3))
    with pytest.raises(ValueError, match="expected rows"):
        Moments.of(np.zeros(3))
