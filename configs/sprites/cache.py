"""Sprites as latents, by the autoencoder of `autoencoder.py`.

    flashmotion cache --config configs/sprites/cache.py

Hardware: two CPU cores. Expect: 6,000 videos, none left out.
"""

from flashmotion_jax.config import CacheConfig

from .common import AUTOENCODER


def get_config() -> CacheConfig:
    """All clips whole, as they were drawn."""
    return CacheConfig(
        data_root="data/sprites",
        model=AUTOENCODER,
        output="data/sprites-cache",
        num_frames=17,
        height=64,
        width=64,
        videos_per_shard=500,
    )
