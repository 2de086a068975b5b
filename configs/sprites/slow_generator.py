"""Sprites, before the stages: the multi-step generator, from nothing.

    flashmotion train --config configs/sprites/slow_generator.py:first
    flashmotion train --config configs/sprites/slow_generator.py          # the second half

Hardware: two CPU cores. Expect: shapes that last until sprites meet.
"""

from typing import Literal, get_args

from configs.sprites.common import AUTOENCODER, TIMESTEPS, adamw, run
from flashmotion_jax.config import SlowGeneratorConfig, TrainConfig

Half = Literal["first", "second"]
RATES = {"first": 1e-3, "second": 7e-4}
STEPS = {"first": 14_000, "second": 14_000}


def get_config(half: Half = "second") -> TrainConfig:
    """112,000 videos a half, of 6,000 clips; the rate rises and falls twice.

    Raises:
      ValueError: there is no such half.
    """
    if half not in get_args(Half):
        raise ValueError(f"half {half!r}; expected {' or '.join(get_args(Half))}")
    first = "slow_generator_first"
    name, start = (
        (first, AUTOENCODER)
        if half == "first"
        else ("slow_generator", f"runs/sprites/{first}/model")
    )
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
