"""Trains a stage with tiny models in a process of its own, for tests that kill it.

PYTHONPATH=.:tests python tests/helpers/run_small.py PREPARED OUTPUT STAGE [key=value ...]
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from flashmotion_jax.config import (
    DiscriminatorConfig,
    FastAdapterConfig,
    FastGeneratorConfig,
    MatchingConfig,
    OptimizerConfig,
    SamplingConfig,
    SlowAdapterConfig,
    SlowGeneratorConfig,
    TrainConfig,
    with_overrides,
)
from flashmotion_jax.config.adapters import ResNetAdapterConfig
from flashmotion_jax.training.trainer import train
from helpers import small_cache, tiny

STEPS = 24
STAGES = ("slow_generator", "slow_adapter", "fast_generator", "fast_adapter")


def prepare(folder, **changes):
    """A checkpoint with a small adapter, and a cache of random latents with changed settings."""
    sampling = SamplingConfig(sampler="unipc", solver_steps=2, num_frames=9, height=64, width=96)
    tiny.save_checkpoint(folder / "base", sampling)
    small_cache.make_cache(folder / "cache", num_rows=10, **changes)


def stage_config(base, stage):
    """A stage whose models have optimizer state, and a moving average."""
    optimizer = OptimizerConfig(learning_rate=1e-3)
    averaged = dataclasses.replace(optimizer, ema_decay=0.9)
    match stage:
        case "slow_generator":
            return SlowGeneratorConfig(slow_generator=base, optimizer=averaged)
        case "slow_adapter":
            return SlowAdapterConfig(
                slow_generator=base, adapter=ResNetAdapterConfig(width=16), optimizer=averaged
            )
        case "fast_generator":
            return FastGeneratorConfig(
                slow_generator=base,
                optimizer=averaged,
                fake_score_optimizer=optimizer,
                matching=MatchingConfig(student_every=2),
            )
        case "fast_adapter":
            return FastAdapterConfig(
                slow_generator=base,
                fast_generator=base,
                slow_adapter=base,
                adapter="resnet",
                optimizer=averaged,
                discriminator_optimizer=optimizer,
                discriminator=DiscriminatorConfig(block_indices=(1,), dim=16, num_heads=2),
                adapter_every=2,
                separate_gradients=False,  # a backward pass less to compile
            )
    raise ValueError(f"{stage}; expected one of {STAGES}")


def config(prepared, output, stage, *overrides):
    """The run of a stage, from the `base` and `cache` of a prepared folder."""
    values = TrainConfig(
        stage=stage_config(str(prepared / "base"), stage),
        cache=str(prepared / "cache"),
        workdir=str(output),
        num_train_steps=STEPS,
        batch_size=2,
        dtype="float32",
        remat="none",
        log_every=1,
        save_every=2,
        sample_every=0,
    )
    return with_overrides(values, overrides)


def main(prepared, output, stage, *overrides):
    sys.modules["tensorboardX"] = None  # would import torch, in every process
    result = train(config(Path(prepared), Path(output), stage, *overrides))
    print("finished" if result.model else "stopped", result.num_steps, flush=True)
    return 0 if result.model else 143


if __name__ == "__main__":
    main(*sys.argv[1:])
