"""Sprites, before stage 1: the small model's autoencoder, first trained on single frames.

    flashmotion train --config configs/sprites/autoencoder_images.py

Hardware: two CPU cores.
Expect: every sprite has its color and shape in reconstructed first frames. Later frames are wrong:
the temporal layers are not trained yet.
"""

from flashmotion_jax.config import TrainConfig

from .common import autoencoder, muon

STEPS = 500


def get_config() -> TrainConfig:
    """Single frames: those of one clip are similar, and a whole clip costs 17 times as much."""
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
