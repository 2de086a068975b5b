"""What a stage consists of: trained models, frozen models, updates, and the exported checkpoint.

A `Stage` is data: the trainer reads it and knows no particular stage. `training.stages` has one
file per stage, and the table of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import jax
from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    AdapterConfig,
    DiTConfig,
    FewStepConfig,
    KnownFrames,
    OptimizerConfig,
    SamplingConfig,
    TrainConfig,
)
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.sharding import place
from flashmotion_jax.training.train_state import TrainState, create_train_state
from flashmotion_jax.training.train_step import Models, Update

Module = TypeVar("Module", bound=nnx.Module)


@dataclasses.dataclass(frozen=True)
class ComponentRef:
    """A component of a checkpoint on disk.

    Attributes:
      path: Checkpoint folder.
      kind: Component, one of `checkpoints.components.kinds`.
    """

    path: str
    kind: str

    def read(self) -> components.Component:
        """Reads its configuration and the digest of its weights."""
        # Its errors about the whole folder are clearer than those about one component.
        components.read_sampling(self.path)
        return components.read_component(self.path, self.kind)

    def load(self, policy: Policy) -> Any:
        """Loads the module with its weights onto the current mesh."""
        return components.load_component(self.path, self.kind, policy)

    def abstract(self, policy: Policy) -> nnx.Module:
        """Builds the module with shapes and dtypes in place of arrays."""
        component = self.read()
        return components.abstract_module(self.kind, component.config, policy, component.dit_config)


@dataclasses.dataclass(frozen=True)
class InitSpec:
    """How a trained model is initialized.

    Attributes:
      abstract: The module with shapes and dtypes in place of arrays.
      load: Makes the module on the current mesh.
      optimizer: Its optimizer.
      source: Component that it starts as a copy of, or None if it starts from scratch.
    """

    abstract: nnx.Module
    load: Callable[[], Any]
    optimizer: OptimizerConfig
    source: ComponentRef | None

    def create_train_state(self) -> TrainState:
        """Creates the state before the first update."""
        return program(functools.partial(create_train_state, config=self.optimizer))(self.load())


@dataclasses.dataclass(frozen=True)
class LoRASpec:
    """What a trained LoRA is a LoRA of.

    Attributes:
      kind: Component of the LoRA.
      config: Configuration of that component.
      base: The frozen component, whose other weights the merged component has too.
    """

    kind: str
    config: Any
    base: ComponentRef


@dataclasses.dataclass(frozen=True)
class ExportSpec:
    """The checkpoint that a run exports: an existing one with one component replaced.

    Attributes:
      model: Trained model that becomes the component; its moving average if one is kept.
      kind: The component that is replaced.
      config: Configuration of that component.
      base: Checkpoint folder that all other components are taken from.
      sampling: Sampling settings of the exported checkpoint.
      dit_config: Of an adapter, the configuration of its DiT.
      generator: Role of the DiT that makes sample videos; empty for an autoencoder.
      adapter: Role of the adapter that does, or None.
      finalize_config: Maps the trained module to the final `config`.
      lora: Of a LoRA, what it is a LoRA of; both the LoRA and the component that it makes are
        exported.
    """

    model: str
    kind: str
    config: Any
    base: str
    sampling: SamplingConfig
    dit_config: DiTConfig | None = None
    generator: str = ""
    adapter: str | None = None
    finalize_config: Callable[[Any], Any] | None = None
    lora: LoRASpec | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
      trained: Name to initialization of each trained model.
      frozen: Role to component of each frozen model.
      updates: Run in this order within a step.
      export: The resulting checkpoint.
      bounds: Metric to its expected range; the run warns when a metric leaves it.
      data: What a batch holds, latents of a cache or pixels of videos.
      bind: Replaces LoRAs among the models by the modules that they make with frozen ones.
    """

    trained: Mapping[str, InitSpec]
    frozen: Mapping[str, ComponentRef]
    updates: tuple[Update, ...]
    export: ExportSpec
    bounds: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    data: Literal["latents", "pixels"] = "latents"
    bind: Callable[[Models], Models] = dict

    @property
    def known_frames(self) -> KnownFrames | None:
        """Of its adapter, how the frames are drawn on which it knows the trajectory."""
        config = self.export.config
        return config.known_frames if isinstance(config, AdapterConfig) else None


def frozen_policy(run: TrainConfig) -> Policy:
    """Precision of frozen weights: stored in the dtype that they are used in."""
    return Policy(compute=run.dtype, params=run.dtype, remat=run.remat)


def trained_policy(run: TrainConfig) -> Policy:
    """Precision of trained weights: float32 masters."""
    return Policy(compute=run.dtype, params="float32", remat=run.remat)


def from_component(
    run: TrainConfig, component: ComponentRef, optimizer: OptimizerConfig
) -> InitSpec:
    """Initializes a model from a component on disk."""
    policy = trained_policy(run)
    return InitSpec(
        component.abstract(policy), functools.partial(component.load, policy), optimizer, component
    )


def from_scratch(
    run: TrainConfig, build: Callable[[Policy, nnx.Rngs], nnx.Module], optimizer: OptimizerConfig
) -> InitSpec:
    """Initializes a model at random from the run's seed, as its layers define."""

    def make() -> nnx.Module:
        return build(trained_policy(run), nnx.Rngs(run.seed))

    abstract = nnx.eval_shape(make)
    return InitSpec(abstract, lambda: _initialize(make), optimizer, None)


def from_dit(
    run: TrainConfig,
    build: Callable[[Policy, nnx.Rngs], Any],
    dit: ComponentRef,
    optimizer: OptimizerConfig,
) -> InitSpec:
    """Initializes a model as a copy of a DiT, by its method `copy_from_dit`."""
    scratch = from_scratch(run, build, optimizer)

    def load() -> Any:
        return scratch.load().copy_from_dit(dit.load(trained_policy(run)))

    return dataclasses.replace(scratch, load=load, source=dit)


def require_made_for(adapter: ComponentRef, generator: ComponentRef) -> None:
    """Checks that an adapter fits a generator.

    Raises:
      UserError: The adapter was made for a DiT of another configuration.
    """
    expected, found = adapter.read().dit_config, generator.read().config
    if expected != found:
        raise UserError(
            f"the adapter of {adapter.path} is for {expected}; {generator.path} has {found}"
        )


def export_generator(dit: ComponentRef, sampling: SamplingConfig) -> ExportSpec:
    """Exports the trained "generator" in the checkpoint that it started from."""
    return ExportSpec(
        model="generator",
        kind="dit",
        config=dit.read().config,
        base=dit.path,
        sampling=sampling,
        generator="generator",
    )


def export_adapter(
    kind: str, config: Any, generator: str, dit: ComponentRef, sampling: SamplingConfig
) -> ExportSpec:
    """Exports the trained "adapter" in the checkpoint of its generator.

    Args:
      kind: The adapter's component.
      config: Its configuration.
      generator: Role of the generator.
      dit: The generator on disk.
      sampling: Sampling settings of the checkpoint.
    """
    return ExportSpec(
        model="adapter",
        kind=kind,
        config=config,
        base=dit.path,
        sampling=sampling,
        dit_config=dit.read().config,
        generator=generator,
        adapter="adapter",
    )


def few_step_sampling(generator: ComponentRef, student: FewStepConfig) -> SamplingConfig:
    """Sampling settings of a generator's checkpoint, with the student's few steps.

    A student sees the first image of every video, and none of a later frame.
    """
    return dataclasses.replace(
        components.read_sampling(generator.path),
        sampler="few_step",
        needs_image=True,
        knows_key_frames=False,
        **dataclasses.asdict(student),
    )


def _initialize(make: Callable[[], Module]) -> Module:
    # Made on one device and then moved: what starts from scratch is small, or is replaced at once.
    module = program(make)()
    mesh = jax.sharding.get_mesh()
    return module if mesh.empty else place(module, mesh)
