"""Sprites, before the stages: the multi-step generator, from nothing.

    flashmotion train --config configs/sprites/slow_generator.py

Hardware: two CPU cores, 0.6 s a step. Expect: a loss of 0.31 over the last 400 steps, and shapes
that last until sprites meet.
"""

from flashmotion_jax.config import SlowGeneratorConfig, TrainConfig

from .common import AUTOENCODER, TIMESTEPS, optimizer, run

STEPS = 4000
#: At which the rate would reach 0; a mean of the weights settles them at the end.
DECAYED = 4800


def get_config() -> TrainConfig:
    """32,000 videos, of 6,000 clips."""
    return run(
        "slow_generator",
        SlowGeneratorConfig(
            slow_generator=AUTOENCODER,
            optimizer=optimizer(1e-3, DECAYED, ema_decay=0.998),
            timesteps=TIMESTEPS,
        ),
        STEPS,
        save_every=500,
    )
