"""A player: one network that is trained, with everything that its updates need.

Each player has one `optax.multi_transform` over its own parameters and no other's: with one
transform for two players, Adam's momentum would move one in the other's step.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.config import OptimizerConfig
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.training.muon import muon

Module = TypeVar("Module", bound=nnx.Module)


class Player(NamedTuple):
    """The state of a trained network.

    Attributes:
      params: the module, float32 masters.
      opt_state: of `make_optimizer`, over the dotted paths of the parameters.
      ema: moving average of the parameters, or None if none is kept.
      updates: number of updates made, int32.
    """

    params: Any
    opt_state: optax.OptState
    ema: Any
    updates: jax.Array


def new_player(module: nnx.Module, config: OptimizerConfig) -> Player:
    """A player before its first update; traceable, so that `jax.eval_shape` gives its layout.

    Raises:
      UserError: see `make_optimizer`.
    """
    arrays = to_arrays(module)
    return Player(
        params=module,
        opt_state=make_optimizer(config, module).init(arrays),
        ema=jax.tree.map(jnp.copy, module) if config.ema_decay else None,
        updates=jnp.zeros((), jnp.int32),
    )


def update(
    player: Player, gradients: nnx.Module, config: OptimizerConfig, step: jax.Array
) -> Player:
    """One update of the optimizer and of the moving average.

    Args:
      player: before.
      gradients: a module of the same structure.
      config: of the player.
      step: of the run, for `ema_start`.
    """
    arrays = to_arrays(player.params)
    optimizer = make_optimizer(config, player.params)
    updates, opt_state = optimizer.update(to_arrays(gradients), player.opt_state, arrays)
    new_arrays = cast(dict[str, jax.Array], optax.apply_updates(arrays, updates))
    params = from_arrays(player.params, new_arrays)
    ema = player.ema
    if ema is not None:
        decay = jnp.where(step < config.ema_start, 0.0, config.ema_decay)
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
    return Player(params, opt_state, ema, player.updates + 1)


def make_optimizer(
    config: OptimizerConfig, module: nnx.Module
) -> optax.GradientTransformationExtraArgs:
    """Clipping by the whole gradient's norm, then AdamW or Muon with a learning rate a group.

    Args:
      config: kind, rates, moments, groups.
      module: the player's network.

    Returns:
      A transformation of `{path: array}`.

    Raises:
      UserError: a path without a group, or a group without a path.
    """
    rate = learning_rate(config)
    parameters = flat_parameters(module)

    def of_group(factor: float) -> optax.GradientTransformation:
        def group_rate(count: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
            return factor * rate(count)

        if config.kind == "muon":
            return muon(config, group_rate, parameters)
        return optax.adamw(
            group_rate, config.beta1, config.beta2, config.eps, weight_decay=config.weight_decay
        )

    groups: dict[Hashable, optax.GradientTransformation] = {
        prefix: of_group(factor) for prefix, factor in config.groups.items()
    }
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.multi_transform(groups, group_of_path(config.groups, parameters)),
    )


def group_of_path(prefixes: Iterable[str], paths: Iterable[str]) -> dict[str, str]:
    """The group of each parameter: the longest prefix of its path.

    Raises:
      UserError: a path without a group, or a group without a path.
    """
    prefixes, paths = list(prefixes), list(paths)

    def fitting(path: str) -> list[str]:
        return [p for p in prefixes if not p or path == p or path.startswith(f"{p}.")]

    groups = {path: max(fitting(path), key=len) for path in paths if fitting(path)}
    if without := sorted(set(paths) - groups.keys()):
        raise UserError(
            f"groups={prefixes} leave out the parameters {', '.join(without[:4])}; add a group for "
            "them, or '' for all others"
        )
    if empty := sorted(set(prefixes) - set(groups.values())):
        raise UserError(
            f"the groups {empty} hold no parameter; the parameters begin with "
            f"{', '.join(sorted({path.split('.')[0] for path in paths}))}"
        )
    return groups


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """Learning rate after a number of updates: warm-up, then constant or falling to 0."""
    peak, updates = config.learning_rate, config.decay_updates
    decays = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, updates),
        "linear": lambda: optax.linear_schedule(peak, 0.0, updates),
    }
    decay = decays[config.decay]()
    if not config.warmup_updates:
        return decay
    warmup = optax.linear_schedule(0.0, peak, config.warmup_updates)
    return optax.join_schedules([warmup, decay], [config.warmup_updates])


def to_arrays(module: nnx.Module) -> dict[str, jax.Array]:
    """Dotted path to array of every parameter."""
    return {path: variable.get_value() for path, variable in flat_parameters(module).items()}


def from_arrays(module: Module, arrays: dict[str, jax.Array]) -> Module:
    """The module with other arrays, given by dotted path."""
    new = nnx.clone(module)
    for path, variable in flat_parameters(new).items():
        variable.set_value(arrays[path])
    return new
