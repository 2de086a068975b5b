"""Sprites, before the stages: the autoencoder of the small model, on single frames first.

    flashmotion train --config configs/sprites/autoencoder_images.py

Hardware: two CPU cores. Expect: reconstructed first frames in which every sprite has its color and
shape; later frames are wrong, for nothing has been learnt of time yet.
"""

from flashmotion_jax.config import TrainConfig

from .common import autoencoder, muon

STEPS = 500


def get_config() -> TrainConfig:
    """Frames of one clip are much alike: single ones teach most for their price."""
    start = "checkpoints/sprites"
    return autoencoder(
        "autoencoder_images",
        start,
        STEPS,
        16,
        muon(1e-2, STEPS),
        window_frames=1,
        windows_per_video=4,
    )
