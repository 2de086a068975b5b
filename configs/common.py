"""Settings that the paper's runs share: FlashMotion section 4.1, "Implementation details".

docs/training.md lists them field by field, with their sources. Learning rates, steps, ratios and
batch sizes are the paper's; what it leaves open has the defaults of `flashmotion_jax.config`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from flashmotion_jax.config import (
    CacheConfig,
    CachedMapKind,
    FastAdapterConfig,
    MeshConfig,
    OptimizerConfig,
    SamplingConfig,
    SlowAdapterConfig,
    TrainConfig,
    adapter_kind,
)
from flashmotion_jax.runtime.errors import UserError

#: The student's steps, and the timesteps that it is told, as in the code that the paper builds on.
STUDENT = SamplingConfig().with_conventions("flashmotion").few_step

CACHE = CacheConfig().output
SLOW_GENERATOR = "checkpoints/wan22"
FAST_GENERATOR = "runs/stage2/model"


#: Name -> kinds of maps of a cache, and whether the map of each latent frame is encoded alone.
MAPS: dict[str, tuple[tuple[CachedMapKind, ...], bool]] = {
    "": (("mask", "box"), False),
    "points": (("points",), False),
    "frames": (("mask", "box"), True),
}


def with_maps(config: CacheConfig, maps: str) -> CacheConfig:
    """A cache of some of the maps, a name in `MAPS`, in a folder of its own.

    Raises:
      UserError: There is no such name.
    """
    if maps not in MAPS:
        raise UserError(f"maps {maps!r}; expected {' or '.join(filter(None, MAPS))}, or no colon")
    map_kinds, single_frames = MAPS[maps]
    return dataclasses.replace(
        config,
        map_kinds=map_kinds,
        single_frames=single_frames,
        output=cache_of(config.output, maps),
    )


def maps_of(adapter: str, map_kind: CachedMapKind) -> str:
    """Which maps a run needs, a name in `MAPS`."""
    if adapter_kind(adapter).config().known_frames is not None:
        return "frames"
    return "points" if map_kind == "points" else ""


def cache_of(folder: str, maps: str) -> str:
    """The folder of a cache of some of the maps."""
    return f"{folder}-{maps}" if maps else folder


def adapter_optimizer(adapter: str) -> OptimizerConfig:
    """Optimizer of an adapter in stages 1 and 3.

    Raises:
      UserError: There is no such kind of adapter.
    """
    return OptimizerConfig(learning_rate=2e-6, groups=dict(adapter_kind(adapter).groups))


def stage1(
    adapter: str, map_kind: CachedMapKind, num_train_steps: int, start_from: str = ""
) -> TrainConfig:
    """A SlowAdapter, on 16 devices with one video each."""
    return TrainConfig(
        stage=SlowAdapterConfig(
            slow_generator=SLOW_GENERATOR,
            adapter=adapter_kind(adapter).config(),
            start_from=start_from,
            optimizer=adapter_optimizer(adapter),
        ),
        workdir=f"runs/stage1_{map_kind}_{adapter}",
        map_kind=map_kind,
        cache=cache_of(CACHE, maps_of(adapter, map_kind)),
        num_train_steps=num_train_steps,
        batch_size=16,
        mesh=MeshConfig(fsdp=16),
    )


def models(adapter: str) -> dict[str, Any]:
    """Checkpoints that stage 3 and its baselines start from."""
    return {
        "slow_generator": SLOW_GENERATOR,
        "fast_generator": FAST_GENERATOR,
        "slow_adapter": f"runs/stage1_box_{adapter}/model",
        "adapter": adapter,
    }


def stage3(adapter: str) -> TrainConfig:
    """A FastAdapter, on 4 devices with one video each."""
    return TrainConfig(
        stage=FastAdapterConfig(
            **models(adapter),
            optimizer=adapter_optimizer(adapter),
            discriminator_optimizer=OptimizerConfig(learning_rate=2e-6),
            student=STUDENT,
        ),
        workdir=f"runs/stage3_{adapter}",
        cache=cache_of(CACHE, maps_of(adapter, "box")),
        num_train_steps=1000,
        batch_size=4,
        mesh=MeshConfig(fsdp=4),
        save_every=100,
        sample_every=100,
    )


def variant(adapter: str, name: str, **changes: Any) -> TrainConfig:
    """Stage 3 with some fields of its stage changed, in a workdir of its own."""
    run = stage3(adapter)
    stage = dataclasses.replace(cast(FastAdapterConfig, run.stage), **changes)
    return dataclasses.replace(run, stage=stage, workdir=f"runs/stage3_{name}_{adapter}")
