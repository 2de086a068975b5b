"""Loss and gradients of a multi-step generator, against PyTorch."""

from __future__ import annotations

from flashmotion_jax.config import OptimizerConfig, SlowGeneratorConfig
from flashmotion_jax.training.stages.slow_generator import generator_loss
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
