"""Sprites, before the stages: the multi-step generator, from nothing.

    flashmotion train --config configs/sprites/slow_generator.py

Hardware: two CPU cores. Expect: not measured yet.
"""

from configs.sprites.common import AUTOENCODER, TIMESTEPS, adamw, run
from flashmotion_jax.config import SlowGeneratorConfig, TrainConfig

STEPS = 10000


def get_config() -> TrainConfig:
    """160,000 videos, each clip 27 times."""
    return run(
        "slow_generator",
        SlowGeneratorConfig(
            slow_generator=AUTOENCODER,
            optimizer=adamw(1e-3, STEPS, ema_decay=0.998),
            timesteps=TIMESTEPS,
        ),
        STEPS,
        save_every=500,
    )
