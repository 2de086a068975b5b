"""Sprites, before stage 1: the decoder alone, trained further with a patch discriminator.

    flashmotion train --config configs/sprites/decoder.py

The squared error blurs whatever the latents leave open; the adversarial loss makes edges crisp.
Hardware: two CPU cores.
Expect: on held-out clips sharpness rises from 0.64 to 0.88, and PSNR falls from 31.5 to 30.3 dB;
IoU stays at 0.89 (docs/results.md).
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
