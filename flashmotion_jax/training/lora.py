"""Training of an adapter as a LoRA: what it starts from, and what becomes of it.

The loss functions know no LoRAs. They are given the adapter that a LoRA makes with the frozen
model that it is a LoRA of; gradients are taken of the LoRA alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.arrays import Readers, read_array
from flashmotion_jax.config import (
    LORAS,
    AdapterConfig,
    LoRAConfig,
    OptimizerConfig,
    TrainConfig,
    adapter_name,
)
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import sharding_of
from flashmotion_jax.training.stage import (
    ComponentRef,
    ExportSpec,
    InitSpec,
    LoRASpec,
    Stage,
    from_component,
    from_scratch,
)
from flashmotion_jax.training.train_step import LossFn, Models

#: Role of the frozen adapter that a LoRA is one of, where it is not one of a generator.
BASE = "adapter_base"


def init_lora(
    run: TrainConfig,
    lora: LoRAConfig,
    optimizer: OptimizerConfig,
    adapter: AdapterConfig,
    generator: ComponentRef,
    start: ComponentRef | None,
) -> tuple[InitSpec, LoRASpec]:
    """Decides what a LoRA is one of, and how it starts.

    Args:
      run: The run.
      lora: Rank and alpha.
      optimizer: Of the LoRA.
      adapter: Configuration of the adapter that it makes.
      generator: The frozen generator.
      start: An adapter to train further, or None for a new one.

    Returns:
      How it starts: as the LoRA beside `start`, if that is one of the generator; otherwise as a new
      one, of `start` or of the generator. And what it is one of.

    Raises:
      UserError: The LoRA to train further has another rank or alpha.
    """
    kind = f"adapters/{adapter_name(adapter)}_lora"
    beside = start and ComponentRef(start.path, kind)
    if beside and (Path(beside.path) / kind).is_dir():
        found = beside.read().config
        if found.base == generator.read().key:
            if (found.rank, found.factor) != (lora.rank, lora.factor):
                raise UserError(
                    f"lora.rank={lora.rank} with alpha / rank = {lora.factor:g}; the LoRA of "
                    f"{beside.path} has rank {found.rank} and {found.factor:g}: use the same, or "
                    "rank 0 to train all weights"
                )
            return from_component(run, beside, optimizer), LoRASpec(kind, found, generator)
    base = start or generator
    values = {f.name: getattr(adapter, f.name) for f in dataclasses.fields(adapter)}
    make_config: Any = LORAS[kind.removeprefix("adapters/")].config
    config = make_config(**values, rank=lora.rank, factor=lora.factor, base=base.read().key)
    dit_config = generator.read().config
    module = components.component_classes(kind)[1]
    scratch = from_scratch(
        run, lambda policy, rngs: module(config, dit_config, policy=policy, rngs=rngs), optimizer
    )
    load = _start_from(scratch.load, base)
    return dataclasses.replace(scratch, load=load, source=base), LoRASpec(kind, config, base)


def bind_loras(stage: Stage, lora: LoRASpec) -> Stage:
    """Returns the stage with a LoRA as its "adapter", and what that needs."""
    role = next((role for role, ref in stage.frozen.items() if ref == lora.base), BASE)

    def bind(models: Models) -> Models:
        made = {
            name: models[name].on(models[role])
            for name in ("adapter", "adapter_ema")
            if name in models
        }
        return {**models, **made}

    def bound(loss_fn: LossFn) -> LossFn:
        return lambda models, batch, keys, step: loss_fn(bind(models), batch, keys, step)

    return dataclasses.replace(
        stage,
        frozen={**stage.frozen, role: lora.base},
        updates=tuple(
            dataclasses.replace(update, loss_fn=bound(update.loss_fn)) for update in stage.updates
        ),
        export=dataclasses.replace(stage.export, lora=lora),
        bind=bind,
    )


def merged_readers(export: ExportSpec, lora: LoRASpec, own: Readers) -> Readers:
    """The parameters of the adapter that a LoRA makes, read and merged one at a time.

    Args:
      export: The adapter.
      lora: What the LoRA is one of.
      own: Parameters of the LoRA.
    """
    folder = Path(lora.base.path) / lora.base.kind / "params"
    abstract = components.abstract_module(export.kind, export.config, "float32", export.dit_config)

    def merged(path: str) -> np.ndarray:
        weight = read_array(folder, path).astype(np.float32)
        module = path.removesuffix(".kernel")
        if f"{module}.down.kernel" in own:
            down, up = (own[f"{module}.{matrix}.kernel"]() for matrix in ("down", "up"))
            for layer in range(len(weight)):
                weight[layer] += np.float32(lora.config.factor) * (down[layer] @ up[layer])
        return weight

    return {
        path: own[path] if path in own else functools.partial(merged, path)
        for path in components.flat_parameters(abstract)
    }


def _start_from(make: Callable[[], nnx.Module], base: ComponentRef) -> Callable[[], nnx.Module]:
    """Copies what a LoRA has in common with its base: input embedding and, maybe, projections."""

    def load() -> nnx.Module:
        module: Any = make()
        stored = components.flat_parameters(base.abstract(Policy("float32", "float32")))
        for path, variable in components.flat_parameters(module).items():
            if path in stored:
                array = read_array(Path(base.path) / base.kind / "params", path)
                shape = variable.get_value().shape
                if array.shape != shape:
                    kernel = jnp.asarray(array, jnp.float32)
                    array = np.asarray(module.add_input_channels(kernel))
                array = array.astype(np.float32)
                variable.set_value(
                    jax.make_array_from_callback(
                        shape, sharding_of(variable), lambda index, array=array: array[index]
                    )
                )
        return module

    return load
