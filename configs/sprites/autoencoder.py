"""Sprites, before the stages: the autoencoder of the small model, on whole clips.

    flashmotion train --config configs/sprites/autoencoder.py

Hardware: two CPU cores, about 0.9 s a step. Expect: of real clips that went through it a box IoU of
about .76 (held-out clips, `examples/measure_sprites.py`).
"""

import dataclasses

from configs.sprites.common import adamw, autoencoder
from flashmotion_jax.config import TrainConfig

STEPS = 2400


def get_config() -> TrainConfig:
    """Trained on windows of 9 frames, it lost its colors in the frames after them."""
    start = "runs/sprites/autoencoder_images/model"
    optimizer = adamw(4e-4, STEPS, weight_decay=0.0)
    run = autoencoder("autoencoder", start, optimizer, STEPS, window=17)
    return dataclasses.replace(run, batch_size=2)
