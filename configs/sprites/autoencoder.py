"""Sprites, before the stages: the video autoencoder of the small model.

    flashmotion train --config configs/sprites/autoencoder.py

Hardware: two CPU cores. Expect: see docs/sprites.md for the PSNR on held-out videos.
"""

from flashmotion_jax.config import AutoencoderConfig, OptimizerConfig, TrainConfig

STEPS = 4000


def get_config() -> TrainConfig:
    """Windows of 9 frames: the first alone, and two chunks that see their past."""
    warmup = 50
    return TrainConfig(
        stage=AutoencoderConfig(
            autoencoder="checkpoints/sprites",
            data_root="data/sprites",
            num_frames=17,
            height=64,
            width=64,
            window=9,
            optimizer=OptimizerConfig(
                learning_rate=1e-3,
                beta2=0.99,
                weight_decay=0.0,
                clip_norm=1.0,
                warmup_updates=warmup,
                decay="cosine",
                decay_updates=STEPS - warmup,
            ),
        ),
        output="runs/sprites/autoencoder",
        steps=STEPS,
        batch_size=8,
        dtype="float32",
        remat="none",
        num_threads=2,
        sample_every=500,
        num_samples=2,
    )
