"""The state of one trained model, and its optimizer.

Each trained model has an `optax.multi_transform` over its own parameters only: with one transform
for two models, Adam's momentum would move one model on the other's update.
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


class TrainState(NamedTuple):
    """The state of a trained model.

    Attributes:
      params: The module, with float32 master weights.
      opt_state: State of `make_optimizer`, by dotted path of the parameters.
      ema: Exponential moving average of `params`, or None if none is kept.
      num_updates: Number of updates made, int32.
    """

    params: Any
    opt_state: optax.OptState
    ema: Any
    num_updates: jax.Array


def create_train_state(module: nnx.Module, config: OptimizerConfig) -> TrainState:
    """Creates the state before the first update; `jax.eval_shape` gives its shapes and shardings.

    Raises:
      UserError: See `make_optimizer`.
    """
    arrays = to_arrays(module)
    return TrainState(
        params=module,
        opt_state=make_optimizer(config, module).init(arrays),
        ema=jax.tree.map(jnp.copy, module) if config.ema_decay else None,
        num_updates=jnp.zeros((), jnp.int32),
    )


def apply_gradients(
    state: TrainState, gradients: nnx.Module, config: OptimizerConfig, step: jax.Array
) -> TrainState:
    """Updates the parameters and their moving average.

    Args:
      state: The state before the update.
      gradients: A module of the same structure as `state.params`.
      config: The model's optimizer.
      step: Step of the run, for `ema_start`.
    """
    arrays = to_arrays(state.params)
    optimizer = make_optimizer(config, state.params)
    updates, opt_state = optimizer.update(to_arrays(gradients), state.opt_state, arrays)
    new_arrays = cast(dict[str, jax.Array], optax.apply_updates(arrays, updates))
    params = from_arrays(state.params, new_arrays)
    ema = state.ema
    if ema is not None:
        decay = jnp.where(step < config.ema_start, 0.0, config.ema_decay)
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
    return TrainState(params, opt_state, ema, state.num_updates + 1)


def make_optimizer(
    config: OptimizerConfig, module: nnx.Module
) -> optax.GradientTransformationExtraArgs:
    """Clips by the norm of the whole gradient, then applies AdamW or Muon with a rate per group.

    Args:
      config: Kind, learning rates, moments, groups.
      module: The model.

    Returns:
      A transformation of `{path: array}`.

    Raises:
      UserError: A parameter has no group, or a group has no parameter.
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
    """Finds the group of each parameter: the longest prefix of its path.

    Raises:
      UserError: A parameter has no group, or a group has no parameter.
    """
    prefixes, paths = list(prefixes), list(paths)

    def matching(path: str) -> list[str]:
        return [p for p in prefixes if not p or path == p or path.startswith(f"{p}.")]

    groups = {path: max(matching(path), key=len) for path in paths if matching(path)}
    if without := sorted(set(paths) - groups.keys()):
        raise UserError(
            f"groups={prefixes} leave out the parameters {', '.join(without[:4])}; add a group for "
            "them, or '' for all others"
        )
    if empty := sorted(set(prefixes) - set(groups.values())):
        raise UserError(
            f"the groups {empty} match no parameter; the parameters start with "
            f"{', '.join(sorted({path.split('.')[0] for path in paths}))}"
        )
    return groups


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """Learning-rate schedule over updates: linear warm-up, constant, and decaying to 0."""
    peak, updates = config.learning_rate, config.decay_updates
    decays = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, updates),
        "linear": lambda: optax.linear_schedule(peak, 0.0, updates),
    }
    warmup_end = config.warmup_updates
    constant_end = warmup_end + config.constant_updates
    warmup = optax.linear_schedule(0.0, peak, max(1, warmup_end))
    schedules = [warmup, optax.constant_schedule(peak), decays[config.decay]()]
    return optax.join_schedules(schedules, [warmup_end, constant_end])


def to_arrays(module: nnx.Module) -> dict[str, jax.Array]:
    """Maps the dotted path of every parameter to its array."""
    return {path: variable.get_value() for path, variable in flat_parameters(module).items()}


def from_arrays(module: Module, arrays: dict[str, jax.Array]) -> Module:
    """Returns a copy of the module with other arrays, given by dotted path."""
    new = nnx.clone(module)
    for path, variable in flat_parameters(new).items():
        variable.set_value(arrays[path])
    return new
