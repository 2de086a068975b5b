"""Sprites, before the stages: the autoencoder of the small model, on whole clips.

    flashmotion train --config configs/sprites/autoencoder.py

Hardware: two CPU cores. Expect: of real clips that went through it a PSNR of 30 dB and a box IoU of
.88 (held-out clips, `examples/measure_sprites.py`).
"""

from flashmotion_jax.config import TrainConfig

from .common import autoencoder, muon

STEPS = 10_000


def get_config() -> TrainConfig:
    """Trained on windows of 9 frames, it lost its colors in the frames after them."""
    start = "runs/sprites/autoencoder_images/model"
    return autoencoder("autoencoder", start, STEPS, 4, muon(1e-2, STEPS), window_frames=17)
