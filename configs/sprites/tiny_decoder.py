"""Sprites, after the autoencoder: a tiny one of the same latents, for previews and fast decoding.

    flashmotion train --config configs/sprites/tiny_decoder.py

Hardware: two CPU cores, 1 s of one core per step.
Expect: held-out clips are decoded with a PSNR of 27 dB and a box IoU of 0.85, where the VAE has 31
and 0.90 (`tools/measure_tiny_vae.py`); latent_error falls from 0.15 to 0.09.
"""

from flashmotion_jax.config import TinyAutoencoderConfig, TinyVAEConfig, TrainConfig

from .common import AUTOENCODER, PIXELS, muon, run
from .model import CHANNELS

STEPS = 600


def get_config() -> TrainConfig:
    """Two levels of 8 x 8 positions and one of 16 x 16, as in the autoencoder."""
    stage = TinyAutoencoderConfig(
        autoencoder=AUTOENCODER,
        tiny_vae=TinyVAEConfig(
            latent_channels=CHANNELS,
            encoder_dim=32,
            decoder_dims=(64, 48, 32, 32),
            num_blocks=1,
            temporal_downsample=(False, True, True),
            spatial_downsample=(False, True, False),
            patch_size=4,
            linear_code=True,
        ),
        **PIXELS,
        window_frames=17,
        map_fraction=0.2,
        # Without norms, a rate of 1e-2, as for the VAE, diverged after 90 steps.
        optimizer=muon(2e-3, STEPS),
    )
    return run("tiny_decoder", stage, STEPS, batch_size=4, num_samples=2)
