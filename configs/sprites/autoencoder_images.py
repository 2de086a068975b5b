"""Sprites, before the stages: the autoencoder of the small model, on single frames first.

    flashmotion train --config configs/sprites/autoencoder_images.py

Hardware: two CPU cores, about 0.5 s a step. Expect: reconstructed first frames in which every
sprite has its colour and shape; later frames are wrong, for nothing has been learnt of time yet.
"""

from configs.sprites.common import adamw, autoencoder
from flashmotion_jax.config import TrainConfig

STEPS = 3500


def get_config() -> TrainConfig:
    """Frames of one clip are much alike: single ones teach most for their price."""
    return autoencoder(
        "autoencoder_images",
        "checkpoints/sprites",
        adamw(1e-3, STEPS, weight_decay=0.0),
        STEPS,
        window=1,
        windows=4,
    )
