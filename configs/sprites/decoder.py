"""Sprites, before stage 1: the decoder alone, trained further with a patch discriminator.

    flashmotion train --config configs/sprites/decoder.py

The squared error blurs whatever the latents leave open; the adversarial loss makes edges crisp.
Hardware: two CPU cores.
Expect: on 96 held-out clips sharpness rises from 0.63 to 0.88, at a PSNR of 30.3 dB, a box IoU of
0.895 and a mask IoU of 0.892.
"""

from flashmotion_jax.config import TrainConfig

from .common import autoencoder, optimizer

STEPS = 1500


def get_config() -> TrainConfig:
    """With a frozen encoder, so that the latents of a cache stay valid."""
    return autoencoder(
        "decoder",
        "runs/sprites/autoencoder/model",
        STEPS,
        4,
        optimizer(2e-4, STEPS, beta1=0.5, weight_decay=0.0),
        window_frames=17,
        map_fraction=0.0,
        decoder_only=True,
        adversarial_scale=1.5e-2,
        discriminator_optimizer=optimizer(4e-4, STEPS, beta1=0.5, decay="constant"),
    )
