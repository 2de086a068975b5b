"""Loss and gradients of a multi-step generator, against PyTorch."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flashmotion_jax.config import OptimizerConfig, SlowGeneratorConfig
from flashmotion_jax.diffusion.flow import add_noise
from flashmotion_jax.diffusion.generate import Conditions, conditioned_velocity
from flashmotion_jax.diffusion.losses import velocity_loss
from flashmotion_jax.runtime import sharding
from flashmotion_jax.training.stages.slow_generator import draw_given_frames, generator_loss
from flashmotion_jax.training.train_step import draw_noise_and_timesteps
from helpers import toy

CONFIG = SlowGeneratorConfig(
    slow_generator="", optimizer=OptimizerConfig(learning_rate=1e-3), text_dropout=0.0
)


def test_the_loss_and_its_gradient(reference):
    models, batch, keys = toy.models(), toy.batch(), toy.keys()
    models = {"generator": models["slow_generator"], "empty_text": models["empty_text"]}
    value, gradients, terms, _ = toy.evaluate(generator_loss(CONFIG), models, batch, keys)
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
    config = dataclasses.replace(CONFIG, image_dropout=0.5)
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


def test_given_frames_are_neither_noisy_nor_predicted():
    """The loss is that of the frames that are drawn, one video at a time."""
    config = dataclasses.replace(CONFIG, image_dropout=0.3, given_frames=0.7)
    models, batch, keys = toy.models(), toy.batch(8), toy.keys(size=8)
    found = generator_loss(config)(models, batch, keys, jnp.int32(0))[0]["diffusion"].value

    level_keys, dropout_keys = keys.split(2)
    noise, timesteps = draw_noise_and_timesteps(config.timesteps, batch.latents, level_keys)
    num_frames, losses = batch.latents.shape[1], []
    for video, key in enumerate(dropout_keys.split(2)[1].videos):
        is_given = np.asarray(draw_given_frames(config, num_frames, key))
        sigmas = np.where(is_given, 0, timesteps[video] / 1000)
        x0, eps = batch.latents[video], noise[video]
        noisy = np.stack([(1 - s) * x + s * e for s, x, e in zip(sigmas, x0, eps, strict=True)])
        generator, text = models["generator"], batch.text[video : video + 1]
        velocity = generator(noisy[None], 1000 * sigmas[None], generator.text_context(text))[0]
        losses.append(np.mean((velocity - (eps - x0))[~is_given] ** 2))
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize("num_frames", [2, 5, 31])
def test_how_often_frames_are_given(num_frames):
    config = dataclasses.replace(CONFIG, image_dropout=0.25, given_frames=0.6)
    draw = jax.vmap(lambda key: draw_given_frames(config, num_frames, key))
    given_NT = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    has_image_N = given_NT[:, 0]
    assert not given_NT[~has_image_N].any()
    assert has_image_N.mean() == pytest.approx(0.75, abs=0.03)
    assert not given_NT.all(axis=1).any()
    rows = given_NT[has_image_N]
    more = rows[:, 1:].sum(axis=1)
    assert more.max() == min(2, max(0, num_frames - 2))
    if num_frames == 31:
        assert (more > 0).mean() == pytest.approx(0.6, abs=0.04)
        assert rows[:, 1].mean() == pytest.approx(0.2, abs=0.04)  # the video is continued
        assert rows[:, -1].mean() == pytest.approx(0.2, abs=0.04)  # the last image
        assert (rows[:, 3:-1].sum(axis=1)).mean() == pytest.approx(0.2, abs=0.04)


def test_given_frames_do_not_depend_on_the_devices():
    config = dataclasses.replace(CONFIG, image_dropout=0.3, given_frames=0.7)
    draw = jax.jit(jax.vmap(lambda key: draw_given_frames(config, 5, key)))
    keys = jax.random.split(jax.random.key(0), 8)
    expected = draw(keys)
    mesh = sharding.make_mesh(data=4)
    with jax.set_mesh(mesh):
        found = draw(jax.device_put(keys, NamedSharding(mesh, PartitionSpec(("data", "fsdp")))))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["text_dropout", "image_dropout", "given_frames"])
def test_probabilities_out_of_range_raise(name):
    with pytest.raises(ValueError, match=f"{name}=2; expected 0 to 1"):
        SlowGeneratorConfig(
            slow_generator="", optimizer=OptimizerConfig(learning_rate=1.0), **{name: 2}
        )
