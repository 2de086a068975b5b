"""SlowGenerator, before stage 1: a multi-step generator trained by flow matching.

The paper starts from Wan2.2; a model family of another size, or other data, needs its own.

Source: Wan, arXiv:2503.20314, for training the generator by rectified flow.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import SlowAdapterConfig, SlowGeneratorConfig, TrainConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, velocity_target
from flashmotion_jax.diffusion.generate import Conditions, conditioned_velocity
from flashmotion_jax.diffusion.losses import velocity_loss
from flashmotion_jax.diffusion.timesteps import bell_weight
from flashmotion_jax.training.stage import ComponentRef, Stage, export_generator, from_component
from flashmotion_jax.training.train_step import (
    Keys,
    LossFn,
    LossTerm,
    Metrics,
    Models,
    Update,
    draw_noise_and_timesteps,
)


def build(run: TrainConfig, config: SlowGeneratorConfig) -> Stage:
    """Builds the stage."""
    component = ComponentRef(config.slow_generator, "dit")
    sampling = components.read_sampling(component.path)
    if config.given_frames:
        sampling = dataclasses.replace(sampling, knows_key_frames=True)
    return Stage(
        trained={"generator": from_component(run, component, config.optimizer)},
        frozen={},
        updates=(Update("generator", generator_loss(config)),),
        export=export_generator(component, sampling),
    )


def generator_loss(config: SlowGeneratorConfig) -> LossFn:
    """Loss of "generator"; "empty_text" replaces dropped prompts."""

    def loss_fn(
        models: Models, batch: Batch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        if config.image_dropout or config.given_frames:
            loss = given_frames_loss(config, models, batch, keys)
            return {"diffusion": LossTerm(loss)}, {}
        conditions = Conditions(text=batch.text, image_latents=batch.latents[:, :1])
        networks = (models["generator"], None)
        loss = flow_matching_loss(config, networks, conditions, models["empty_text"], batch, keys)
        return {"diffusion": LossTerm(loss)}, {}

    return loss_fn


def flow_matching_loss(
    config: SlowGeneratorConfig | SlowAdapterConfig,
    networks: tuple[Any, Any],
    conditions: Conditions,
    empty_text: jax.Array,
    batch: Batch,
    keys: Keys,
) -> jax.Array:
    """Equation (8) of `diffusion.losses` at a random timestep.

    Args:
      config: Timesteps and text dropout.
      networks: `(dit, adapter)`; the adapter may be None.
      conditions: Conditions of the batch's videos.
      empty_text: `[S, D]`, replaces the text where it is dropped.
      batch: The videos.
      keys: For noise, timesteps and dropout.

    Returns:
      float32 scalar.
    """
    level_keys, dropout_keys = keys.split(2)
    noise, timesteps = draw_noise_and_timesteps(config.timesteps, batch.latents, level_keys)
    text = drop_text(conditions.text, empty_text, dropout_keys.videos, config.text_dropout)
    predict_velocity = conditioned_velocity(*networks, conditions._replace(text=text))
    noisy = add_noise(batch.latents, noise, timesteps / TIMESTEP_SCALE)
    velocity = predict_velocity(noisy, timesteps)
    weight_B = loss_weight(config, timesteps)
    return velocity_loss(velocity, batch.latents, noise, has_image=True, weight=weight_B)


def loss_weight(
    config: SlowGeneratorConfig | SlowAdapterConfig, timesteps_B: jax.Array
) -> jax.Array | None:
    """Weight of each video's loss, `[B]`; None for equal ones."""
    if config.loss_weight == "uniform":
        return None
    return bell_weight(timesteps_B, config.timesteps.shift)


def given_frames_loss(
    config: SlowGeneratorConfig, models: Models, batch: Batch, keys: Keys
) -> jax.Array:
    """Flow-matching loss of the latent frames that are not given, see `draw_given_frames`."""
    level_keys, dropout_keys = keys.split(2)
    text_keys, image_keys = dropout_keys.split(2)
    noise, timesteps = draw_noise_and_timesteps(config.timesteps, batch.latents, level_keys)
    text = drop_text(batch.text, models["empty_text"], text_keys.videos, config.text_dropout)
    draw = functools.partial(draw_given_frames, config, batch.latents.shape[1])
    predicted_BT = 1.0 * ~jax.vmap(draw)(image_keys.videos)
    # Timestep 0 tells the model which frame is given, as in sampling.
    timesteps_BT = timesteps[:, None] * predicted_BT
    noisy = add_noise(batch.latents, noise, timesteps_BT / TIMESTEP_SCALE)
    generator = models["generator"]
    velocity = generator(noisy, timesteps_BT, generator.text_context(text))
    error = velocity - velocity_target(batch.latents, noise)
    error_BT = jnp.mean(error.astype(jnp.float32) ** 2, axis=(2, 3, 4))
    # A mean per video first: videos of which less is given have more frames, not more weight.
    loss_B = jnp.sum(error_BT * predicted_BT, axis=1) / jnp.sum(predicted_BT, axis=1)
    weight_B = loss_weight(config, timesteps)
    return jnp.mean(loss_B if weight_B is None else weight_B * loss_B)


def draw_given_frames(config: SlowGeneratorConfig, num_frames: int, key: jax.Array) -> jax.Array:
    """Draws which latent frames of a video are given clean; the model predicts the others.

    Nothing is given with probability `config.image_dropout`, which is text-to-video. Otherwise it
    is the image, and with probability `config.given_frames` more, equally often the next one or two
    frames, the last frame, or any other.

    Args:
      config: The probabilities.
      num_frames: T, latent frames of the video.
      key: Random key.

    Returns:
      bool `[T]`, at least one of which is False if T > 1.
    """
    more_key, kind_key, frame_key = jax.random.split(jax.random.fold_in(key, 1), 3)
    kind = jax.random.randint(kind_key, (), 0, 3)
    any_frame = jax.random.randint(frame_key, (), 1, num_frames)
    next_frame = jnp.minimum(jax.random.randint(frame_key, (), 1, 3), num_frames - 2)
    first = jnp.where(kind == 0, 1, jnp.where(kind == 1, num_frames - 1, any_frame))
    last = jnp.where(kind == 0, next_frame, first)
    # Of two latent frames, none would be left.
    has_more = jax.random.bernoulli(more_key, config.given_frames * (num_frames > 2))
    has_image = ~jax.random.bernoulli(key, config.image_dropout)
    frames_T = jnp.arange(num_frames)
    more_T = has_more & (first <= frames_T) & (frames_T <= last)
    return has_image & ((frames_T == 0) | more_T)


def drop_text(
    text_BSD: jax.Array, empty_SD: jax.Array, keys_B: jax.Array, probability: float
) -> jax.Array:
    """Replaces the text of some videos by that of an empty prompt, for classifier-free guidance."""
    dropped_B = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys_B)
    return jnp.where(dropped_B[:, None, None], empty_SD[None], text_BSD)
