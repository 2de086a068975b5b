from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.features.latents import latent_features
from flashmotion_jax.evaluation.frechet import frechet_distance


def smooth_latents(seed, count=64):
    """Drifting random blobs of 4 channels, which resemble latents of a VAE."""
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
