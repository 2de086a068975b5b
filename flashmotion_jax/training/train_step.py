"""One update of one trained model: gradients, accumulation, optimizer and metrics.

A loss function is pure: `(models, batch, keys, step) -> (terms, metrics)`. What every update needs
besides its loss is here, once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jax.sharding import PartitionSpec

from flashmotion_jax.config import OptimizerConfig, TimestepsConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.samplers import draw_noise
from flashmotion_jax.diffusion.timesteps import draw_timesteps
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import Program, program
from flashmotion_jax.runtime.sharding import split_batch_like
from flashmotion_jax.training.train_state import (
    TrainState,
    apply_gradients,
    group_of_path,
    learning_rate,
    to_arrays,
)

Models = Mapping[str, Any]
"""Role to module or constant: frozen and trained models, and `<model>_ema` where one is kept."""

Metrics = dict[str, jax.Array]


class LossTerm(NamedTuple):
    """A loss and its weight in the sum that is minimized."""

    value: jax.Array
    weight: jax.Array | float = 1.0


class Keys(NamedTuple):
    """Random keys of one update.

    Attributes:
      shared: One key for the whole batch, the same on all processes.
      videos: `[B]`, one per video, so that a video's noise does not depend on its batch.
    """

    shared: jax.Array
    videos: jax.Array

    def split(self, count: int) -> list[Keys]:
        """Returns `count` independent sets of keys."""
        return [
            Keys(
                jax.random.fold_in(self.shared, index),
                jax.vmap(jax.random.fold_in, (0, None))(self.videos, index),
            )
            for index in range(count)
        ]


LossFn = Callable[[Models, Any, Keys, jax.Array], tuple[dict[str, LossTerm], Metrics]]
"""`(models, batch, keys, step) -> (terms, metrics)`; values are means over the videos of a batch,
which is a `Batch` or whatever else the stage reads."""

TrainStep = Program[[TrainState, Models, Batch, jax.Array, jax.Array], tuple[TrainState, Metrics]]
"""`(state, models, batch, key, step) -> (state, metrics)`; `models` lacks the trained one, and
`state` is donated."""


@dataclasses.dataclass(frozen=True)
class Update:
    """Which model is updated, by which loss, and when.

    Attributes:
      model: Name of the trained model.
      loss_fn: What it minimizes.
      every: Steps per update.
      start: First step that may update the model, counted from 0.
      separate_gradients: Measure the gradient of each term on its own, at the cost of one backward
        pass and one gradient in memory for each term.
    """

    model: str
    loss_fn: LossFn
    every: int = 1
    start: int = 0
    separate_gradients: bool = False

    def is_due(self, step: int) -> bool:
        """Whether the update runs on a step, counted from 0."""
        return step >= self.start and (step + 1) % self.every == 0


def make_train_step(update: Update, config: OptimizerConfig) -> TrainStep:
    """Compiles an update: gradients of the loss, then one step of the optimizer.

    Args:
      update: The model and its loss.
      config: The model's optimizer.

    Returns:
      The compiled step. Its metrics are scalars: `loss/<term>`, `weight/<term>`, `gradient_norm`,
      `gradient_norm/<group or term>`, `learning_rate`, and those of the loss function.
    """

    def train_step(
        state: TrainState, models: Models, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[TrainState, Metrics]:
        models = dict(models)
        if state.ema is not None:
            models[f"{update.model}_ema"] = state.ema

        def gradients_of(batch: Batch, keys: Keys) -> tuple[Any, Metrics]:
            def loss_fn(trained: Any) -> tuple[dict[str, LossTerm], Metrics]:
                return update.loss_fn(models | {update.model: trained}, batch, keys, step)

            return _gradients(loss_fn, state.params, update.separate_gradients)

        gradients, metrics = _accumulate(
            gradients_of, batch, split_keys(key, batch), config.accumulate
        )
        metrics |= _gradient_norms(gradients, config)
        rate = learning_rate(config)(state.num_updates)
        metrics["learning_rate"] = jnp.asarray(rate, jnp.float32)
        return apply_gradients(state, gradients, config, step), metrics

    return program(train_step, donate_argnames=("state",))


def split_keys(key: jax.Array, batch: Batch) -> Keys:
    """Splits a key into those of a batch; the videos' keys are sharded as the videos are."""
    shared, videos = jax.random.split(key)
    first = jax.tree.leaves(batch)[0]
    keys = jax.random.split(videos, first.shape[0])
    if not jax.sharding.get_abstract_mesh().empty:
        spec = jax.typeof(first).sharding.spec
        keys = jax.sharding.reshard(keys, PartitionSpec(spec[0]))
    return Keys(shared, keys)


def draw_noise_and_timesteps(
    config: TimestepsConfig, latents: jax.Array, keys: Keys
) -> tuple[jax.Array, jax.Array]:
    """Draws noise of the latents' shape `[B, T, h, w, C]` and one timestep per video `[B]`."""
    noise_keys, timestep_keys = keys.split(2)
    timesteps = draw_timesteps(
        timestep_keys.videos, shift=config.shift, low=config.low, high=config.high
    )
    return draw_noise(noise_keys.videos, latents.shape[1:]), timesteps


def broadcast_text(text_SD: jax.Array, text_BSD: jax.Array) -> jax.Array:
    """Repeats one text for all videos of a batch, sharded as their own texts are."""
    return split_batch_like(jnp.broadcast_to(text_SD, text_BSD.shape), text_BSD)


def _accumulate(
    gradients_of: Callable[[Batch, Keys], tuple[Any, Metrics]],
    batch: Batch,
    keys: Keys,
    num_parts: int,
) -> tuple[Any, Metrics]:
    """Average the result of a function over equal parts of a batch, one part after the other."""
    if num_parts == 1:
        return gradients_of(batch, keys)
    first = jax.tree.leaves(batch)[0]
    num_videos = first.shape[0]
    num_devices = num_videos // jax.typeof(first).sharding.shard_shape(first.shape)[0]
    if num_videos % (num_parts * num_devices):
        raise UserError(
            f"batch_size={num_videos} cannot be split into accumulate={num_parts} equal parts over "
            f"{num_devices} devices each; expected a multiple of {num_parts * num_devices}"
        )

    def result(part: tuple[Batch, jax.Array]) -> tuple[Any, Metrics]:
        return gradients_of(part[0], Keys(keys.shared, part[1]))

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(lambda a, b: a + b / num_parts, total, result(part)), None

    # The part is the minor dimension of the split, so that each part has videos of all devices and
    # no video moves between them.
    stacked = jax.tree.map(
        lambda x: jnp.moveaxis(rearrange(x, "(b p) ... -> b p ...", p=num_parts), 1, 0),
        (batch, keys.videos),
    )
    abstract = jax.eval_shape(result, jax.tree.map(lambda x: x[0], stacked))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype, device=a.sharding), abstract)
    return jax.lax.scan(add, zeros, stacked)[0]


def _gradients(
    loss_fn: Callable[[Any], tuple[dict[str, LossTerm], Metrics]], trained: Any, separate: bool
) -> tuple[Any, Metrics]:
    """Gradient of the weighted sum of the terms, and the metrics of terms and loss function."""

    def values(trained: Any) -> tuple[dict[str, jax.Array], tuple[dict[str, jax.Array], Metrics]]:
        terms, metrics = loss_fn(trained)
        weights = {name: jnp.asarray(term.weight, jnp.float32) for name, term in terms.items()}
        return {name: term.value for name, term in terms.items()}, (weights, metrics)

    terms, pullback, (weights, metrics) = jax.vjp(values, trained, has_aux=True)
    metrics = metrics | {f"loss/{name}": value for name, value in terms.items()}
    if len(terms) > 1:
        metrics |= {f"weight/{name}": weight for name, weight in weights.items()}
    if not separate:
        # The weights are the cotangents of the terms, so one backward pass gives the weighted sum.
        return pullback(weights)[0], metrics
    gradients = []
    for name in terms:
        gradient = pullback({other: jnp.float32(other == name) for other in terms})[0]
        metrics[f"gradient_norm/{name}"] = optax.tree.norm(gradient)
        gradients.append(jax.tree.map(lambda g, weight=weights[name]: weight * g, gradient))
    return jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *gradients), metrics


def _gradient_norms(gradients: Any, config: OptimizerConfig) -> Metrics:
    """Norm of the whole gradient and, if there are several groups, of each."""
    arrays = to_arrays(gradients)
    metrics = {"gradient_norm": optax.tree.norm(arrays)}
    groups = group_of_path(config.groups, arrays)
    if len(config.groups) > 1:
        for group in config.groups:
            members = [array for path, array in arrays.items() if groups[path] == group]
            metrics[f"gradient_norm/{group or 'rest'}"] = optax.tree.norm(members)
    return metrics
