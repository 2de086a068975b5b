"""A checkpoint of the published sizes without weights, and a cache of their shapes: a few files."""

from __future__ import annotations

import json

import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    DiTConfig,
    SamplingConfig,
    TrainConfig,
    load_config,
    to_dict,
    with_overrides,
)
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig, SparseCtrlConfig
from flashmotion_jax.data.cache_writer import finish_cache, write_shard, write_text
from flashmotion_jax.data.records import Record
from helpers import small_cache

DIT = DiTConfig()
MAPS = ("mask", "box", "points", "mask_frames", "box_frames")


def write_world(folder, latent_frames, num_rows=1):
    """Makes the checkpoint at `folder`, and its cache of zeros at `folder`/cache."""
    components.write_sampling(folder, SamplingConfig())
    for kind, config, dit_config in (
        ("dit", DIT, None),
        ("adapters/resnet", ResNetAdapterConfig(), DIT),
        ("adapters/controlnet", ControlNetConfig(), DIT),
        ("adapters/sparsectrl", SparseCtrlConfig(), DIT),
    ):
        component = components.Component(
            kind=kind, dtype="bfloat16", config=config, dit_config=dit_config, num_bytes=0, key=kind
        )
        (folder / kind).mkdir(parents=True)
        (folder / kind / "config.json").write_text(json.dumps(to_dict(component)))
    latents = np.zeros((latent_frames, 44, 80, DIT.in_channels), np.float32)
    text = np.zeros((DIT.text_len, DIT.text_dim), np.float32)
    settings = small_cache.settings(
        num_rows,
        latent_shape=latents.shape,
        text_dim=DIT.text_dim,
        text_len=DIT.text_len,
        maps=MAPS,
        point_sigma=0.02,
    )
    maps = dict.fromkeys(MAPS, latents)
    write_text(folder / "cache", text[:1], text[:1])
    for number in range(settings.num_shards):
        rows = range(number * 4, min(number * 4 + 4, num_rows))
        records = [Record(f"v{row}", "", latents, maps, text) for row in rows]
        write_shard(folder / "cache", number, settings, records)
    finish_cache(folder / "cache", settings)
    return folder


def load_run(name, world, *overrides):
    """A configuration of `configs/` with the paths of the world."""
    config = load_config(name, TrainConfig)
    roles = ["slow_generator", "fast_generator", "slow_adapter"]
    if getattr(config.stage, "start_from", ""):
        roles.append("start_from")
    paths = [f"stage.{role}={world}" for role in roles if hasattr(config.stage, role)]
    return with_overrides(config, [f"cache={world / 'cache'}", *paths, *overrides])
