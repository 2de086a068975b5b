"""Sprites as latents, encoded by the result of `autoencoder.py`.

    flashmotion cache --config configs/sprites/cache.py

Hardware: two CPU cores.
Expect: 40,000 videos, none rejected.
"""

from flashmotion_jax.config import CacheConfig

from .common import AUTOENCODER


def get_config() -> CacheConfig:
    """The first clips of the seed, drawn when they are encoded."""
    return CacheConfig(
        data="sprites",
        num_clips=40_000,
        model=AUTOENCODER,
        output="data/sprites-cache",
        num_frames=17,
        height=64,
        width=64,
        resize="crop",  # nothing to resize; but images that the model is given keep their shape
        videos_per_shard=500,
    )
