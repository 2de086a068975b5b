"""Loss and gradients of stage 1, against PyTorch."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.config import OptimizerConfig, SlowAdapterConfig
from flashmotion_jax.training.stages.slow_adapter import adapter_loss
from flashmotion_jax.training.stages.slow_generator import drop_text
from helpers import toy


def losses_with(text_dropout):
    optimizer = OptimizerConfig(learning_rate=1e-3)
    return adapter_loss(
        SlowAdapterConfig(slow_generator="", optimizer=optimizer, text_dropout=text_dropout)
    )


LOSSES = {dropout: losses_with(dropout) for dropout in (0.0, 1.0)}


@pytest.mark.parametrize("dropout", LOSSES)
def test_the_loss_and_its_gradient(reference, dropout):
    models, batch, keys = toy.models(), toy.batch(), toy.keys()
    value, gradients, terms, _ = toy.evaluate(LOSSES[dropout], models, batch, keys)
    assert list(terms) == ["diffusion"]

    for_level, _ = keys.split(2)
    for_noise, for_timesteps = for_level.split(2)
    video = reference.Video(batch)
    if dropout:
        video = video.with_text(models["empty_text"])
    adapter, generator = (reference.weights(models[r]) for r in ("adapter", "slow_generator"))
    noise = reference.noise_of(for_noise.videos)
    sigma = reference.sigmas_of(for_timesteps.videos, 5.0)
    noisy = reference.add_noise(video.latents, noise, sigma)
    velocity = reference.velocity(generator, adapter, noisy, sigma, video)
    loss = reference.error(velocity, noise - video.latents)
    reference.compare(value, gradients["adapter"], loss, adapter)


def test_a_videos_loss_does_not_depend_on_its_batch():
    models, batch, keys = toy.models(), toy.batch(), toy.keys()
    whole, *_ = toy.evaluate(LOSSES[0.0], models, batch, keys)
    alone = [
        toy.evaluate(
            LOSSES[0.0],
            models,
            toy.videos(index, batch),
            keys._replace(videos=keys.videos[index]),
        )[0]
        for index in np.arange(4).reshape(4, 1)
    ]
    np.testing.assert_allclose(whole, np.mean(alone), rtol=1e-6)
    assert len(set(map(float, alone))) == 4


def test_each_text_is_dropped_by_its_own_key():
    keys = toy.keys(0, 400).videos
    texts, empty = jnp.ones((400, 2, 3)), jnp.zeros((2, 3))
    kept = np.asarray(drop_text(texts, empty, keys, 0.25))
    assert np.all(kept == kept[:, :1, :1])
    assert 0.19 < 1 - kept.mean() < 0.31
    np.testing.assert_array_equal(drop_text(texts[:7], empty, keys[:7], 0.25), kept[:7])
