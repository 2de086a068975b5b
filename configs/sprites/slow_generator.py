"""Sprites, before stage 1: the multi-step generator, trained from scratch.

    flashmotion train --config configs/sprites/slow_generator.py

Hardware: two CPU cores.
Expect: shapes and colors persist until sprites meet.
"""

from flashmotion_jax.config import SlowGeneratorConfig, TrainConfig

from .common import AUTOENCODER, TIMESTEPS, optimizer, run

STEPS = 30_000


def get_config() -> TrainConfig:
    """480,000 videos, drawn from 40,000 clips; most of them at the full learning rate."""
    return run(
        "slow_generator",
        SlowGeneratorConfig(
            slow_generator=AUTOENCODER,
            optimizer=optimizer(1e-3, STEPS, constant_updates=STEPS * 3 // 4, ema_decay=0.9995),
            timesteps=TIMESTEPS,
            image_dropout=0.2,
            given_frames=0.2,
        ),
        STEPS,
        batch_size=16,
        sample_every=2500,
        save_every=250,
    )
