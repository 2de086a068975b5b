"""What a stage is made of: its players, the models that stand still, and whose turn it is.

A `Stage` is data; the loop reads it and knows no kind of stage. `training.stages` builds them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DiTConfig, OptimizerConfig, SamplingConfig, TrainConfig
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.sharding import place
from flashmotion_jax.training.player import Player, new_player
from flashmotion_jax.training.turn import Turn

Module = TypeVar("Module", bound=nnx.Module)


class Source(NamedTuple):
    """A component on disk.

    Attributes:
      path: checkpoint folder.
      kind: component, as in `checkpoints.components.kinds`.
    """

    path: str
    kind: str

    def read(self) -> components.Component:
        """Its configuration and the digest of its weights."""
        components.read_sampling(
            self.path
        )  # says what is wrong with the folder before its parts do
        return components.read_component(self.path, self.kind)

    def load(self, policy: Policy) -> Any:
        """The module with its weights, on the mesh that is set."""
        return components.load_component(self.path, self.kind, policy)

    def abstract(self, policy: Policy) -> nnx.Module:
        """The module with shapes and dtypes in place of arrays."""
        component = self.read()
        return components.abstract_module(self.kind, component.config, policy, component.dit_config)


class Beginning(NamedTuple):
    """Where a player comes from.

    Attributes:
      abstract: the module with shapes and dtypes in place of arrays.
      load: makes the module, on the mesh that is set.
      optimizer: how it is trained.
      source: what it starts as a copy of, None if it starts from scratch.
    """

    abstract: nnx.Module
    load: Callable[[], Any]
    optimizer: OptimizerConfig
    source: Source | None

    def new_player(self) -> Player:
        """The player before its first update."""
        return program(functools.partial(new_player, config=self.optimizer))(self.load())


class Result(NamedTuple):
    """What a run leaves behind: a checkpoint with one component replaced.

    Attributes:
      player: whose weights it is, or their moving average if there is one.
      kind: the component they become.
      config: its sizes.
      base: checkpoint folder that gives all other components.
      sampling: how the checkpoint is sampled.
      dit_config: of an adapter, the DiT it belongs to.
      generator: role of the DiT that makes sample videos.
      adapter: role of the adapter that does, or None.
      configure: what the trained module decides of `config`, in the end.
    """

    player: str
    kind: str
    config: Any
    base: str
    sampling: SamplingConfig
    dit_config: DiTConfig | None
    generator: str
    adapter: str | None
    configure: Callable[[Any], Any] | None = None


class Stage(NamedTuple):
    """A way to train.

    Attributes:
      players: name to beginning.
      frozen: role to component.
      turns: played in this order within a step.
      result: what comes of it.
      bounds: metric to the range it should stay in; the run warns when it leaves.
    """

    players: Mapping[str, Beginning]
    frozen: Mapping[str, Source]
    turns: tuple[Turn, ...]
    result: Result
    bounds: Mapping[str, tuple[float, float]] = {}


def frozen_policy(run: TrainConfig) -> Policy:
    """Weights that stand still are stored as they are used."""
    return Policy(compute=run.dtype, params=run.dtype, remat=run.remat)


def trained_policy(run: TrainConfig) -> Policy:
    """Trained weights have float32 masters."""
    return Policy(compute=run.dtype, params="float32", remat=run.remat)


def from_source(run: TrainConfig, source: Source, optimizer: OptimizerConfig) -> Beginning:
    """A player that starts as a component on disk."""
    policy = trained_policy(run)
    return Beginning(
        source.abstract(policy), functools.partial(source.load, policy), optimizer, source
    )


def from_scratch(
    run: TrainConfig, build: Callable[[Policy, nnx.Rngs], nnx.Module], optimizer: OptimizerConfig
) -> Beginning:
    """A player with the initial values of its layers, drawn from the run's seed."""

    def make() -> nnx.Module:
        return build(trained_policy(run), nnx.Rngs(run.seed))

    abstract = nnx.eval_shape(make)
    return Beginning(abstract, lambda: _initialise(make), optimizer, None)


def from_dit(
    run: TrainConfig,
    build: Callable[[Policy, nnx.Rngs], Any],
    dit: Source,
    optimizer: OptimizerConfig,
) -> Beginning:
    """A module that starts as a copy of a DiT; it has a method `copy_from_dit`."""
    scratch = from_scratch(run, build, optimizer)

    def load() -> Any:
        return scratch.load().copy_from_dit(dit.load(trained_policy(run)))

    return scratch._replace(load=load, source=dit)


def _initialise(make: Callable[[], Module]) -> Module:
    # Made whole and then moved: what starts from scratch is small, or becomes a copy at once.
    module = program(make)()
    mesh = jax.sharding.get_mesh()
    return module if mesh.empty else place(module, mesh)
