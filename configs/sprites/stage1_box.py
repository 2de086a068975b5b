"""Sprites, stage 1, second half: the adapter goes on with boxes.

    flashmotion train --config configs/sprites/stage1_box.py             # ResNet
    flashmotion train --config configs/sprites/stage1_box.py:controlnet

Hardware: two CPU cores, some ten minutes. Expect: sprites follow their boxes.
"""

from configs.sprites.common import ADAPTERS, SLOW_GENERATOR, TIMESTEPS, Adapter, adamw, run
from flashmotion_jax.config import SlowAdapterConfig, TrainConfig

STEPS = 1000


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """Half the rates of the masks."""
    return run(
        f"stage1_box_{adapter}",
        SlowAdapterConfig(
            slow_generator=SLOW_GENERATOR,
            adapter=ADAPTERS[adapter],
            start_from=f"runs/sprites/stage1_mask_{adapter}/model",
            optimizer=adamw({"resnet": 1e-3, "controlnet": 2.5e-4}[adapter], STEPS),
            timesteps=TIMESTEPS,
        ),
        STEPS,
    )
