from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.frechet import frechet_distance, frechet_of_pairs, latent_features


def with_moments(mean, covariance, count=200, seed=0):
    """Rows whose sample mean and covariance are exactly these."""
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


def test_is_scipys_matrix_root():
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
def test_features_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"expected \[N, D\] and \[M, D\]"):
        frechet_distance(np.zeros(shape), np.zeros((5, 4)))


def test_features_that_are_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.full((3, 2), np.nan), np.zeros((3, 2)))


def test_pairs_with_frames_are_pooled():
    pairs = np.random.default_rng(9).normal(size=(6, 2, 5, 3))
    expected = frechet_distance(pairs[:, 0].reshape(30, 3), pairs[:, 1].reshape(30, 3))
    assert frechet_of_pairs(pairs) == expected
    for shape in ((6, 3), (6, 3, 4)):
        with pytest.raises(ValueError, match=r"expected \[N, 2, ..., D\]"):
            frechet_of_pairs(np.zeros(shape))


def smooth_latents(seed, count=64):
    """Random blobs of 4 channels that drift; latents as a VAE might make them."""
    rng = np.random.default_rng(seed)
    y, x, t = np.mgrid[0:8, 0:8, 0:5]
    latents = np.empty((count, 5, 8, 8, 4))
    for video in latents:
        for c in range(4):
            waves = rng.normal(0, 0.8, (3, 3)) @ np.stack([y, x, t]).reshape(3, -1)
            field = np.cos(waves + rng.uniform(0, 6.28, (3, 1))).sum(axis=0)
            video[..., c] = field.reshape(8, 8, 5).transpose(2, 0, 1)
    return latents


def blurred(latents):
    return (latents + np.roll(latents, 1, 2) + np.roll(latents, 1, 3)) / 3


def test_latent_features_rank_distortions():
    real, other = smooth_latents(0), latent_features(smooth_latents(1))
    assert other.shape == (64, 16)
    noise = np.random.default_rng(2).normal(0, 0.5, real.shape)

    def distance(latents):
        return frechet_distance(latent_features(latents), other)

    floor = distance(real)
    assert distance((real + blurred(real)) / 2) > 1.5 * floor
    assert distance(blurred(real)) > 1.5 * distance((real + blurred(real)) / 2)
    assert distance(np.repeat(real[:, :1], 5, axis=1)) > 3 * floor
    assert distance(real + noise) > 3 * floor


def test_latent_features_of_a_ramp():
    latents = np.zeros((2, 3, 4, 5, 1))
    latents[1] = 7 + 2 * np.arange(3)[:, None, None, None]
    mean, deviation, detail, motion = latent_features(latents)[1]
    assert mean == 9
    assert deviation == pytest.approx(np.std([7, 9, 11]))
    assert detail == 0
    assert motion == 2


def test_latents_of_another_shape():
    with pytest.raises(ValueError, match=r"expected \[N, T, h, w, C\]"):
        latent_features(np.zeros((2, 1, 4, 4, 16)))
