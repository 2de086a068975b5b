"""Loss and gradients of a multi-step generator, against PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.config import OptimizerConfig, SlowGeneratorConfig
from flashmotion_jax.diffusion.flow import add_noise
from flashmotion_jax.diffusion.generate import Conditions, conditioned_velocity
from flashmotion_jax.diffusion.losses import velocity_loss
from flashmotion_jax.training.stages.slow_generator import generator_loss
from flashmotion_jax.training.train_step import draw_noise_and_timesteps
from helpers import toy


def test_the_loss_and_its_gradient(reference):
    config = SlowGeneratorConfig(
        slow_generator="", optimizer=OptimizerConfig(learning_rate=1e-3), text_dropout=0.0
    )
    models, batch, keys = toy.models(), toy.batch(), toy.keys()
    models = {"generator": models["slow_generator"], "empty_text": models["empty_text"]}
    value, gradients, terms, _ = toy.evaluate(generator_loss(config), models, batch, keys)
    assert list(terms) == ["diffusion"]

    for_level, _ = keys.split(2)
    for_noise, for_timesteps = for_level.split(2)
    video = reference.Video(batch)
    generator = reference.weights(models["generator"])
    noise = reference.noise_of(for_noise.videos)
    sigma = reference.sigmas_of(for_timesteps.videos, 5.0)
    noisy = reference.add_noise(video.latents, noise, sigma)
    velocity = reference.velocity(generator, None, noisy, sigma, video)
    loss = reference.error(velocity, noise - video.latents)
    reference.compare(value, gradients["generator"], loss, generator)


def test_without_their_images_videos_are_generated_from_text():
    """Each video's loss is that with its image or that of text-to-video, as its key says."""
    config = SlowGeneratorConfig(
        slow_generator="",
        optimizer=OptimizerConfig(learning_rate=1e-3),
        text_dropout=0.0,
        image_dropout=0.5,
    )
    models, batch, keys = toy.models(), toy.batch(8), toy.keys(size=8)
    found = generator_loss(config)(models, batch, keys, jnp.int32(0))[0]["diffusion"].value

    level_keys, dropout_keys = keys.split(2)
    noise, timesteps = draw_noise_and_timesteps(config.timesteps, batch.latents, level_keys)
    noisy = add_noise(batch.latents, noise, timesteps / 1000)
    losses = []
    for image in (batch.latents[:, :1], None):
        conditions = Conditions(text=batch.text, image_latents=image)
        velocity = conditioned_velocity(models["generator"], None, conditions)(noisy, timesteps)
        triples = zip(velocity[:, None], batch.latents[:, None], noise[:, None], strict=True)
        losses.append([velocity_loss(*triple, image is not None) for triple in triples])
    dropped = np.array([jax.random.bernoulli(key, 0.5) for key in dropout_keys.split(2)[1].videos])
    assert 0 < dropped.sum() < 8
    np.testing.assert_allclose(found, np.where(dropped, *losses[::-1]).mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["text_dropout", "image_dropout"])
def test_probabilities_out_of_range_raise(name):
    with pytest.raises(ValueError, match=f"{name}=2; expected 0 to 1"):
        SlowGeneratorConfig(
            slow_generator="", optimizer=OptimizerConfig(learning_rate=1.0), **{name: 2}
        )
