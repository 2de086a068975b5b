"""Settings that the runs of Sprites share."""

from __future__ import annotations

from typing import Any

from flashmotion_jax.config import (
    AutoencoderConfig,
    CachedMapKind,
    FewStepConfig,
    OptimizerConfig,
    SlowAdapterConfig,
    StageConfig,
    TimestepsConfig,
    TrainConfig,
    adapter_kind,
)

from ..common import cache_of, maps_of

#: Learning rate and steps of stage 1 by kind of maps: for an adapter from scratch, and for one that
#: starts as a copy of the generator.
SCHEDULES = {
    "mask": ((2e-3, 4000), (7e-4, 4000)),
    "box": ((1e-3, 10_000), (4e-4, 10_000)),
    "points": ((1e-3, 10_000), (4e-4, 10_000)),
}
#: 4 pixels of 64: half a token of the VAE's latents, which narrower points would fall between.
POINT_SIGMA = 1 / 16
#: Wan2.2's shift of 5 is for videos of 27,280 tokens; one of 320 tokens needs less noise.
TIMESTEPS = TimestepsConfig(shift=3.0)
STUDENT = FewStepConfig(shift=3.0)

#: Where runs on pixels get their clips, which are drawn when they are read.
PIXELS: dict[str, Any] = {
    "data": "sprites",
    "num_clips": 200_000,
    "num_frames": 17,
    "height": 64,
    "width": 64,
}

CACHE = "data/sprites-cache"
AUTOENCODER = "runs/sprites/decoder/model"
SLOW_GENERATOR = "runs/sprites/slow_generator/model"
FAST_GENERATOR = "runs/sprites/stage2/model"


def optimizer(learning_rate: float, updates: int, **changes: Any) -> OptimizerConfig:
    """Optimizer with warm-up over 5 % of the updates, and then linear decay to 0."""
    warmup = updates // 20
    settings: dict[str, Any] = {"beta2": 0.99, "clip_norm": 1.0, "decay": "linear"} | changes
    constant = settings.get("constant_updates", 0)
    return OptimizerConfig(
        learning_rate=learning_rate,
        warmup_updates=warmup,
        decay_updates=updates - warmup - constant if settings["decay"] != "constant" else 0,
        **settings,
    )


def muon(learning_rate: float, updates: int) -> OptimizerConfig:
    """Muon on the same schedule."""
    return optimizer(learning_rate, updates, kind="muon", weight_decay=0.0)


def autoencoder(
    name: str, start: str, steps: int, batch_size: int, optimizer: OptimizerConfig, **changes: Any
) -> TrainConfig:
    """An autoencoder, trained on clips that are drawn when they are read."""
    settings: dict[str, Any] = {"map_fraction": 0.2} | changes
    stage = AutoencoderConfig(
        autoencoder=start,
        optimizer=optimizer,
        **PIXELS,
        **settings,
    )
    return run(name, stage, steps, batch_size=batch_size, num_samples=2, save_every=50)


def stage1(map_kind: CachedMapKind, adapter: str, start_from: str = "") -> TrainConfig:
    """A SlowAdapter."""
    row = adapter_kind(adapter)
    learning_rate, steps = SCHEDULES[map_kind][row.copies_dit]
    stage = SlowAdapterConfig(
        slow_generator=SLOW_GENERATOR,
        adapter=row.config(),
        start_from=start_from,
        optimizer=optimizer(learning_rate, steps),
        timesteps=TIMESTEPS,
    )
    cache = cache_of(CACHE, maps_of(adapter, map_kind))
    name = f"stage1_{map_kind}_{adapter}"
    return run(name, stage, steps, map_kind=map_kind, cache=cache)


def run(name: str, stage: StageConfig, steps: int, **changes: Any) -> TrainConfig:
    """A run on a CPU, in float32."""
    settings: dict[str, Any] = {
        "batch_size": 8,
        "sample_every": 500,
        "num_samples": 4,
        "log_every": 20,
        "cache": CACHE,
    } | changes
    return TrainConfig(
        stage=stage,
        workdir=f"runs/sprites/{name}",
        num_train_steps=steps,
        dtype="float32",
        remat="none",
        num_threads=2,
        **settings,
    )
