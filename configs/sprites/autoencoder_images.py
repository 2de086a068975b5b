"""Sprites, before the stages: the autoencoder of the small model, on single frames first.

    flashmotion train --config configs/sprites/autoencoder_images.py

Hardware: two CPU cores, about 0.45 s a step. Expect: reconstructed first frames in which every
sprite has its color and shape; later frames are wrong, for nothing has been learnt of time yet.
"""

import dataclasses

from configs.sprites.common import adamw, autoencoder
from flashmotion_jax.config import TrainConfig

STEPS = 1500
#: At which the rate would reach 0: whole clips go on at a rate of their own.
DECAYED = 2500


def get_config() -> TrainConfig:
    """Frames of one clip are much alike: single ones teach most for their price."""
    optimizer = adamw(1e-3, DECAYED, weight_decay=0.0)
    start = "checkpoints/sprites"
    run = autoencoder("autoencoder_images", start, optimizer, STEPS, window=1, windows=4)
    return dataclasses.replace(run, batch_size=4)
