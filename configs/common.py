"""What the paper's runs share: FlashMotion section 4.1, "Implementation details".

Field by field, with the sources, in docs/training.md. Learning rates, steps, ratios and batch sizes
are the paper's; what it leaves open has the defaults of `flashmotion_jax.config`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, cast

from flashmotion_jax.config import (
    ControlNetConfig,
    FastAdapterConfig,
    MeshConfig,
    OptimizerConfig,
    ResNetAdapterConfig,
    SlowAdapterConfig,
    TrainConfig,
)
from flashmotion_jax.runtime.errors import UserError

Adapter = Literal["resnet", "controlnet"]

SLOW_GENERATOR = "checkpoints/wan22"
FAST_GENERATOR = "runs/stage2/model"

#: Parts of each adapter whose gradients are watched apart.
ADAPTER_GROUPS = {
    "resnet": {"stem": 1.0, "blocks": 1.0, "blocks.projection": 1.0},
    "controlnet": {"": 1.0, "blocks": 1.0, "projections": 1.0},
}
ADAPTERS = {"resnet": ResNetAdapterConfig(), "controlnet": ControlNetConfig()}


def adapter_optimizer(adapter: Adapter) -> OptimizerConfig:
    """AdamW of an adapter, in stages 1 and 3.

    Raises:
      UserError: it is neither "resnet" nor "controlnet".
    """
    if adapter not in ADAPTERS:
        raise UserError(f"adapter {adapter!r}; expected one of {', '.join(ADAPTERS)}")
    return OptimizerConfig(learning_rate=2e-6, groups=ADAPTER_GROUPS[adapter])


def stage1(
    adapter: Adapter, kind: Literal["mask", "box"], steps: int, start_from: str = ""
) -> TrainConfig:
    """An adapter on the SlowGenerator: 16 devices, a video each."""
    return TrainConfig(
        stage=SlowAdapterConfig(
            slow_generator=SLOW_GENERATOR,
            adapter=ADAPTERS[adapter],
            start_from=start_from,
            optimizer=adapter_optimizer(adapter),
        ),
        output=f"runs/stage1_{kind}_{adapter}",
        kind=kind,
        steps=steps,
        batch_size=16,
        mesh=MeshConfig(fsdp=16),
    )


def models(adapter: Adapter) -> dict[str, Any]:
    """What stage 3 and its baselines start from."""
    return {
        "slow_generator": SLOW_GENERATOR,
        "fast_generator": FAST_GENERATOR,
        "slow_adapter": f"runs/stage1_box_{adapter}/model",
        "adapter": adapter,
    }


def stage3(adapter: Adapter) -> TrainConfig:
    """An adapter on the FastGenerator: 4 devices, a video each."""
    return TrainConfig(
        stage=FastAdapterConfig(
            **models(adapter),
            optimizer=adapter_optimizer(adapter),
            discriminator_optimizer=OptimizerConfig(learning_rate=2e-6),
        ),
        output=f"runs/stage3_{adapter}",
        steps=1000,
        batch_size=4,
        mesh=MeshConfig(fsdp=4),
        save_every=100,
        sample_every=100,
    )


def variant(adapter: Adapter, name: str, **changes: Any) -> TrainConfig:
    """Stage 3 with some fields of its stage changed, in an output folder of its own."""
    run = stage3(adapter)
    stage = dataclasses.replace(cast(FastAdapterConfig, run.stage), **changes)
    return dataclasses.replace(run, stage=stage, output=f"runs/stage3_{name}_{adapter}")
