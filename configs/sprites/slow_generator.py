"""Sprites, before the stages: the multi-step generator, from nothing.

    flashmotion train --config configs/sprites/slow_generator.py:first
    flashmotion train --config configs/sprites/slow_generator.py          # the second half

Hardware: two CPU cores, 0.24 s a step. Expect: after the first half a loss of 0.34, and videos in
which sprites keep their colours but not yet their shapes; the second half is not measured yet.
"""

from typing import Literal

from configs.sprites.common import AUTOENCODER, TIMESTEPS, adamw, run
from flashmotion_jax.config import SlowGeneratorConfig, TrainConfig


def get_config(half: Literal["first", "second"] = "second") -> TrainConfig:
    """160,000 videos, then twice as many; of 6,000 clips."""
    first = half == "first"
    steps = 10_000 if first else 20_000
    optimizer = adamw(1e-3 if first else 7e-4, steps, ema_decay=0.998)
    start = AUTOENCODER if first else "runs/sprites/slow_generator_first/model"
    return run(
        "slow_generator_first" if first else "slow_generator",
        SlowGeneratorConfig(slow_generator=start, optimizer=optimizer, timesteps=TIMESTEPS),
        steps,
        save_every=500,
    )
