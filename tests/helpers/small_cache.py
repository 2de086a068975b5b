"""A latent cache of random numbers, made without models or videos."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.data.cache_writer import finish_cache, write_shard, write_text
from flashmotion_jax.data.latent_cache import CacheSettings
from flashmotion_jax.data.records import Record
from flashmotion_jax.trajectory.formats.magicdata_csv import RowError

SHAPE = (3, 4, 6, 48)
TEXT_DIM = 32
TEXT_LEN = 16
EMPTY, NEGATIVE = (
    np.random.default_rng(seed).standard_normal((tokens, TEXT_DIM), np.float32)
    for seed, tokens in ((1, 1), (2, 5))
)


def settings(num_rows, videos_per_shard=4, **changes):
    values = {
        "csv_sha256": "0" * 64,
        "num_frames": 9,
        "height": 64,
        "width": 96,
        "resize": "stretch",
        "latent_shape": SHAPE,
        "text_dim": TEXT_DIM,
        "text_len": TEXT_LEN,
        "dtype": "float16",
        "vae_key": "vae",
        "text_encoder_key": "umt5",
        "text_dtype": "float32",
        "negative_prompt": "blurry",
    }
    return CacheSettings(num_rows=num_rows, videos_per_shard=videos_per_shard, **values | changes)


def record(row, kinds=("mask", "box")):
    """The record of a row: the same whenever it is asked for, with values that float16 holds."""
    rng = np.random.default_rng(row)

    def draw(*shape):
        return rng.standard_normal(shape, np.float32).astype(np.float16).astype(np.float32)

    return Record(
        id=f"v{row}",
        caption=f"video {row} \u2603",
        latents=draw(*SHAPE),
        maps={kind: draw(*SHAPE) for kind in kinds},
        text=draw(1 + row % TEXT_LEN, TEXT_DIM),
    )


def rows_of(number, settings, rejected=()):
    """What `write_shard` is given: records, and errors for the rejected rows."""
    start = number * settings.videos_per_shard
    for row in range(start, min(start + settings.videos_per_shard, settings.num_rows)):
        yield (
            RowError(row, f"v{row}", "is short") if row in rejected else record(row, settings.maps)
        )


def make_cache(folder, num_rows=10, rejected=(), **changes):
    """Writes a cache of `num_rows` rows without those rejected, and opens it."""
    chosen = settings(num_rows, **changes)
    write_text(folder, EMPTY, NEGATIVE)
    for number in range(chosen.num_shards):
        write_shard(folder, number, chosen, rows_of(number, chosen, rejected))
    return finish_cache(folder, chosen)
