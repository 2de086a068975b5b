"""MagicData as latents: 23 K videos of 121 frames at 704 x 1280, about 1.4 TB in float16.

    flashmotion cache --config configs/cache_magicdata.py            # masks and boxes
    flashmotion cache --config configs/cache_magicdata.py:points     # points, 0.9 TB
    flashmotion cache --config configs/cache_magicdata.py:frames     # for sparse adapters, 2.3 TB
    flashmotion cache --config configs/cache_magicdata.py --part 2/8   # on machine 2 of 8

Needs `checkpoints/wan22` (`flashmotion convert import ...`) and MagicData's folders in
`data/MagicData`. Videos that are short, missing or damaged are listed in report.json.
"""

from flashmotion_jax.config import CacheConfig

from .common import with_maps


def get_config(maps: str = "") -> CacheConfig:
    """The paper's data at the paper's size, which are the defaults."""
    return with_maps(CacheConfig(), maps)
