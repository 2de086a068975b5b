"""Stage 1, SlowAdapter: an adapter on the frozen SlowGenerator, trained by flow matching.

Source: FlashMotion section 3.2; timesteps and text dropout as in Wan2.2's training.
"""

from __future__ import annotations

import jax
from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    ADAPTERS,
    SlowAdapterConfig,
    TrainConfig,
    adapter_name,
    to_dict,
)
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.generate import Conditions
from flashmotion_jax.models.adapters import adapter_class
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.training.lora import bind_loras, init_lora
from flashmotion_jax.training.stage import (
    ComponentRef,
    InitSpec,
    Stage,
    export_adapter,
    from_component,
    from_dit,
    from_scratch,
    require_made_for,
)
from flashmotion_jax.training.stages.slow_generator import flow_matching_loss
from flashmotion_jax.training.train_step import Keys, LossFn, LossTerm, Metrics, Models, Update


def build(run: TrainConfig, config: SlowAdapterConfig) -> Stage:
    """Builds the stage."""
    generator = ComponentRef(config.slow_generator, "dit")
    kind = f"adapters/{adapter_name(config.adapter)}"
    start = _open_start(config, generator, kind)
    if config.lora.rank:
        adapter, lora = init_lora(
            run, config.lora, config.optimizer, config.adapter, generator, start
        )
    else:
        adapter, lora = _init_adapter(run, config, generator, start), None
    stage = Stage(
        trained={"adapter": adapter},
        frozen={"slow_generator": generator},
        updates=(Update("adapter", adapter_loss(config)),),
        export=export_adapter(
            kind,
            config.adapter,
            "slow_generator",
            generator,
            components.read_sampling(generator.path),
        ),
    )
    return bind_loras(stage, lora) if lora else stage


def _open_start(
    config: SlowAdapterConfig, generator: ComponentRef, kind: str
) -> ComponentRef | None:
    """The adapter to train further, if there is one."""
    if not config.start_from:
        return None
    start = ComponentRef(config.start_from, kind)
    found, wanted = to_dict(start.read().config), to_dict(config.adapter)
    if differing := [name for name, value in found.items() if value != wanted[name]]:
        has, asks = (
            ", ".join(f"{name}={values[name]!r}" for name in differing)
            for values in (found, wanted)
        )
        raise UserError(f"{start.path} has {has}; the configuration asks for {asks}")
    require_made_for(start, generator)
    return start


def _init_adapter(
    run: TrainConfig,
    config: SlowAdapterConfig,
    generator: ComponentRef,
    start: ComponentRef | None,
) -> InitSpec:
    adapter, optimizer = config.adapter, config.optimizer
    dit_config = generator.read().config
    if start:
        return from_component(run, start, optimizer)
    name = adapter_name(adapter)

    def build_adapter(policy: Policy, rngs: nnx.Rngs) -> nnx.Module:
        return adapter_class(name)(adapter, dit_config, policy=policy, rngs=rngs)

    if ADAPTERS[name].copies_dit:
        return from_dit(run, build_adapter, generator, optimizer)
    return from_scratch(run, build_adapter, optimizer)


def adapter_loss(config: SlowAdapterConfig) -> LossFn:
    """Loss of "adapter" on the frozen "slow_generator"; "empty_text" replaces dropped prompts."""

    def loss_fn(
        models: Models, batch: Batch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        networks = (models["slow_generator"], models["adapter"])
        loss = flow_matching_loss(
            config, networks, data_conditions(batch), models["empty_text"], batch, keys
        )
        return {"diffusion": LossTerm(loss)}, {}

    return loss_fn


def data_conditions(batch: Batch) -> Conditions:
    """Text, first frame and trajectory of a batch."""
    return Conditions(
        text=batch.text,
        image_latents=batch.latents[:, :1],
        trajectory_latents=batch.trajectory,
    )
