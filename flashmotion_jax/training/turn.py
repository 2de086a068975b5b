"""A turn: one player's part of a training step, made from its losses alone.

Losses are pure functions of the player's module, all other models, a batch and random keys. What
every player needs is here once: gradients, accumulation, the update and its measurements.
"""

from __future__ import annotations

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
from flashmotion_jax.training.player import (
    Player,
    group_of_path,
    learning_rate,
    to_arrays,
    update,
)

Models = Mapping[str, Any]
"""Role to module or constant: frozen ones, all players', and `<player>_ema` where there is one."""

Metrics = dict[str, jax.Array]


class Term(NamedTuple):
    """A loss and its weight in the sum that is minimised."""

    value: jax.Array
    weight: jax.Array | float = 1.0


class Draws(NamedTuple):
    """Random keys of one turn.

    Attributes:
      shared: one key for the whole batch, the same on all processes.
      videos: `[B]`, one a video, so that a video's draws do not depend on its batch.
    """

    shared: jax.Array
    videos: jax.Array

    def split(self, count: int) -> list[Draws]:
        """Independent draws for as many purposes."""
        purposes = range(count)
        return [
            Draws(
                jax.random.fold_in(self.shared, purpose),
                jax.vmap(jax.random.fold_in, (0, None))(self.videos, purpose),
            )
            for purpose in purposes
        ]


Losses = Callable[[Models, Any, Draws, jax.Array], tuple[dict[str, Term], Metrics]]
"""`(models, batch, draws, step) -> (terms, metrics)`; values are means over the videos of a batch,
which is a `Batch`, or whatever the stage reads."""

Step = Program[[Player, Models, Batch, jax.Array, jax.Array], tuple[Player, Metrics]]
"""`(player, models, batch, key, step) -> (player, metrics)`, `models` without the player, which is
donated."""


class Turn(NamedTuple):
    """Who plays when, and for what.

    Attributes:
      player: name of the player.
      losses: what it minimises.
      every: it plays in each `every`-th step.
      start: and not before this step.
      separate_gradients: measure the gradient of each term apart, at the cost of a backward pass
        and one gradient in memory for each term.
    """

    player: str
    losses: Losses
    every: int = 1
    start: int = 0
    separate_gradients: bool = False

    def plays(self, step: int) -> bool:
        """Whether the player plays in this step, counted from 0."""
        return step >= self.start and (step + 1) % self.every == 0


def make_step(turn: Turn, config: OptimizerConfig) -> Step:
    """Compiles a turn: gradients of the losses, then one update of the player.

    Args:
      turn: whose losses.
      config: the player's optimizer.

    Returns:
      The step. Metrics are scalars: `loss/<term>`, `weight/<term>`, `gradient_norm`,
      `gradient_norm/<group or term>`, `learning_rate`, and those of the losses.
    """

    def step(
        player: Player, models: Models, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[Player, Metrics]:
        models = dict(models)
        if player.ema is not None:
            models[f"{turn.player}_ema"] = player.ema

        def of_part(part: Batch, draws: Draws) -> tuple[Any, Metrics]:
            def losses(trained: Any) -> tuple[dict[str, Term], Metrics]:
                return turn.losses(models | {turn.player: trained}, part, draws, step)

            return _gradients(losses, player.params, turn.separate_gradients)

        gradients, metrics = _in_parts(of_part, batch, draw_keys(key, batch), config.accumulate)
        metrics |= _norms(gradients, config)
        metrics["learning_rate"] = jnp.asarray(learning_rate(config)(player.updates), jnp.float32)
        return update(player, gradients, config, step), metrics

    return program(step, donate_argnames=("player",))


def draw_keys(key: jax.Array, batch: Batch) -> Draws:
    """Keys of a batch, those of the videos split over devices as the videos are."""
    shared, videos = jax.random.split(key)
    first = jax.tree.leaves(batch)[0]
    keys = jax.random.split(videos, first.shape[0])
    if not jax.sharding.get_abstract_mesh().empty:
        spec = jax.typeof(first).sharding.spec
        keys = jax.sharding.reshard(keys, PartitionSpec(spec[0]))
    return Draws(shared, keys)


def draw_noise_level(
    spread: TimestepsConfig, latents: jax.Array, draws: Draws
) -> tuple[jax.Array, jax.Array]:
    """Noise like the latents `[B, T, h, w, C]`, and a timestep for each video `[B]`."""
    for_noise, for_timesteps = draws.split(2)
    timesteps = draw_timesteps(
        for_timesteps.videos, shift=spread.shift, low=spread.low, high=spread.high
    )
    return draw_noise(for_noise.videos, latents.shape[1:]), timesteps


def for_all(text_SD: jax.Array, text_BSD: jax.Array) -> jax.Array:
    """One text for all videos of a batch, split over devices as their own texts are."""
    return split_batch_like(jnp.broadcast_to(text_SD, text_BSD.shape), text_BSD)


def _in_parts(
    of_part: Callable[[Batch, Draws], tuple[Any, Metrics]], batch: Batch, draws: Draws, parts: int
) -> tuple[Any, Metrics]:
    """Mean of what a function makes of equal parts of a batch, one part after the other."""
    if parts == 1:
        return of_part(batch, draws)
    first = jax.tree.leaves(batch)[0]
    videos = first.shape[0]
    devices = videos // jax.typeof(first).sharding.shard_shape(first.shape)[0]
    if videos % (parts * devices):
        raise UserError(
            f"batch_size={videos} cannot be taken in accumulate={parts} equal parts over {devices} "
            f"devices each; expected a multiple of {parts * devices}"
        )

    def result(part: tuple[Batch, jax.Array]) -> tuple[Any, Metrics]:
        return of_part(part[0], Draws(draws.shared, part[1]))

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(lambda a, b: a + b / parts, total, result(part)), None

    # Each part takes videos from all devices: the batch's dimension is split last-first.
    stacked = jax.tree.map(
        lambda x: jnp.moveaxis(rearrange(x, "(b p) ... -> b p ...", p=parts), 1, 0),
        (batch, draws.videos),
    )
    layout = jax.eval_shape(result, jax.tree.map(lambda x: x[0], stacked))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype, device=a.sharding), layout)
    return jax.lax.scan(add, zeros, stacked)[0]


def _gradients(
    losses: Callable[[Any], tuple[dict[str, Term], Metrics]], trained: Any, separate: bool
) -> tuple[Any, Metrics]:
    """Gradient of the weighted sum of the terms, and the metrics of terms and losses."""

    def values(trained: Any) -> tuple[dict[str, jax.Array], tuple[dict[str, jax.Array], Metrics]]:
        terms, metrics = losses(trained)
        weights = {name: jnp.asarray(term.weight, jnp.float32) for name, term in terms.items()}
        return {name: term.value for name, term in terms.items()}, (weights, metrics)

    terms, pullback, (weights, metrics) = jax.vjp(values, trained, has_aux=True)
    metrics = metrics | {f"loss/{name}": value for name, value in terms.items()}
    if len(terms) > 1:
        metrics |= {f"weight/{name}": weight for name, weight in weights.items()}
    if not separate:
        return pullback(weights)[0], metrics
    gradients = []
    for name in terms:
        gradient = pullback({other: jnp.float32(other == name) for other in terms})[0]
        metrics[f"gradient_norm/{name}"] = optax.tree.norm(gradient)
        gradients.append(jax.tree.map(lambda g, weight=weights[name]: weight * g, gradient))
    return jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *gradients), metrics


def _norms(gradients: Any, config: OptimizerConfig) -> Metrics:
    """Norm of the whole gradient and, where there are several groups, of each."""
    arrays = to_arrays(gradients)
    metrics = {"gradient_norm": optax.tree.norm(arrays)}
    groups = group_of_path(config.groups, arrays)
    if len(config.groups) > 1:
        for group in config.groups:
            members = [array for path, array in arrays.items() if groups[path] == group]
            metrics[f"gradient_norm/{group or 'rest'}"] = optax.tree.norm(members)
    return metrics
