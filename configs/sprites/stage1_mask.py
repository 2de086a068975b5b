"""Sprites, stage 1, first half: an adapter on the multi-step generator, by masks.

    flashmotion train --config configs/sprites/stage1_mask.py             # ResNet
    flashmotion train --config configs/sprites/stage1_mask.py:controlnet

Hardware: two CPU cores, some ten minutes. Expect: the loss falls below that of the generator alone.
"""

from configs.sprites.common import ADAPTERS, SLOW_GENERATOR, TIMESTEPS, Adapter, adamw, run
from flashmotion_jax.config import SlowAdapterConfig, TrainConfig

STEPS = 1000


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """A ResNet learns from nothing, a ControlNet from a copy of the generator: other rates."""
    return run(
        f"stage1_mask_{adapter}",
        SlowAdapterConfig(
            slow_generator=SLOW_GENERATOR,
            adapter=ADAPTERS[adapter],
            optimizer=adamw({"resnet": 2e-3, "controlnet": 5e-4}[adapter], STEPS),
            timesteps=TIMESTEPS,
        ),
        STEPS,
        kind="mask",
    )
