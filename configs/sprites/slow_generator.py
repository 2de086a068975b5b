"""Sprites, before the stages: the multi-step generator, from nothing.

    flashmotion train --config configs/sprites/slow_generator.py:first
    flashmotion train --config configs/sprites/slow_generator.py          # the second half

Hardware: two CPU cores, 0.24 to 0.28 s a step. Expect: after the first half a loss of 0.35, and
videos in which sprites keep their colours but not their shapes; after the second 0.28, and shapes
that last until sprites meet.
"""

from configs.sprites.common import AUTOENCODER, TIMESTEPS, Half, adamw, in_halves, run
from flashmotion_jax.config import SlowGeneratorConfig, TrainConfig

RATES = {"first": 1e-3, "second": 7e-4}
STEPS = {"first": 10_000, "second": 20_000}


def get_config(half: Half = "second") -> TrainConfig:
    """160,000 videos, then twice as many; of 6,000 clips."""
    name, start = in_halves("slow_generator", half, AUTOENCODER)
    return run(
        name,
        SlowGeneratorConfig(
            slow_generator=start,
            optimizer=adamw(RATES[half], STEPS[half], ema_decay=0.998),
            timesteps=TIMESTEPS,
        ),
        STEPS[half],
        save_every=500,
    )
