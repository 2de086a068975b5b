"""Sprites, before the stages: the autoencoder of the small model, longer on whole clips.

    flashmotion train --config configs/sprites/autoencoder_long.py

Hardware: two CPU cores. Expect: of real clips that went through it more than
the box IoU of .76 at which it begins (held-out clips, `examples/measure_sprites.py`).
"""

import dataclasses

from configs.sprites.common import adamw, autoencoder
from flashmotion_jax.config import TrainConfig

STEPS = 6000


def get_config() -> TrainConfig:
    """A constant rate and a mean of the weights: it may be ended at any step."""
    start = "runs/sprites/autoencoder/model"
    optimizer = adamw(3e-4, 1000, weight_decay=0.0, decay="constant", ema_decay=0.998)
    run = autoencoder("autoencoder_long", start, optimizer, STEPS, window=17)
    return dataclasses.replace(run, batch_size=2)
