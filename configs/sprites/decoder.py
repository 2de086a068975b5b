"""Sprites, before stage 1: the decoder alone goes on with a patch discriminator, for crisp edges.

    flashmotion train --config configs/sprites/decoder.py

Squared error makes a blur of what the latents leave open. Hardware: two CPU cores. Expect: a
sharpness above .75 (held-out clips), at a PSNR lower by up to 1 dB; discriminator/accuracy near .6.
"""

from flashmotion_jax.config import TrainConfig

from .common import autoencoder, optimizer

STEPS = 1500


def get_config() -> TrainConfig:
    """The encoder is frozen: the latents stay as they are."""
    return autoencoder(
        "decoder",
        "runs/sprites/autoencoder/model",
        STEPS,
        4,
        optimizer(2e-4, STEPS, beta1=0.5, weight_decay=0.0),
        window_frames=17,
        map_fraction=0.0,
        decoder_only=True,
        adversarial_scale=3e-3,
        discriminator_optimizer=optimizer(2e-4, STEPS, beta1=0.5, decay="constant"),
    )
