"""Sprites, before stage 1: the small model's autoencoder, trained on whole clips.

    flashmotion train --config configs/sprites/autoencoder.py

Hardware: two CPU cores.
Expect: held-out clips are reconstructed with a PSNR of 30 dB and a box IoU of 0.88
(`examples/measure_sprites.py`).
"""

from flashmotion_jax.config import TrainConfig

from .common import autoencoder, muon

STEPS = 7000


def get_config() -> TrainConfig:
    """Whole clips: trained on windows of 9 frames, colors faded in later frames."""
    start = "runs/sprites/autoencoder_images/model"
    return autoencoder("autoencoder", start, STEPS, 4, muon(1e-2, STEPS), window_frames=17)
