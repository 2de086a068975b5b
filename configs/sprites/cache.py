"""Sprites as latents, encoded by the result of `autoencoder.py`.

    flashmotion cache --config configs/sprites/cache.py              # masks and boxes
    flashmotion cache --config configs/sprites/cache.py:points       # points
    flashmotion cache --config configs/sprites/cache.py:frames       # for sparse adapters

Hardware: two CPU cores.
Expect: 40,000 videos, none rejected.
"""

from flashmotion_jax.config import CacheConfig

from ..common import with_maps
from .common import AUTOENCODER, CACHE, POINT_SIGMA


def get_config(maps: str = "") -> CacheConfig:
    """The first clips of the seed, drawn when they are encoded."""
    config = CacheConfig(
        data="sprites",
        num_clips=40_000,
        model=AUTOENCODER,
        output=CACHE,
        num_frames=17,
        height=64,
        width=64,
        resize="crop",  # nothing to resize; but images that the model is given keep their shape
        videos_per_shard=500,
        point_sigma=POINT_SIGMA,
    )
    return with_maps(config, maps)
