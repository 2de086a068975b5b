"""Baseline DMD of Table 1: the adapter distilled by distribution matching, in place of stage 3.

It starts where stage 3 does. The real score is the SlowGenerator with the SlowAdapter; the fake
score is the same with a trained adapter.

Source: FlashMotion section 4.1.
"""

from __future__ import annotations

from flashmotion_jax.config import DMDConfig, TrainConfig
from flashmotion_jax.training.stage import Stage, from_component
from flashmotion_jax.training.stages.distribution_matching import (
    BOUNDS,
    Roles,
    distribution_matching_losses,
    distribution_matching_updates,
)
from flashmotion_jax.training.stages.fast_adapter import export_fast_adapter, start_components
from flashmotion_jax.training.stages.slow_adapter import data_conditions
from flashmotion_jax.training.train_step import LossFn


def build(run: TrainConfig, config: DMDConfig) -> Stage:
    """Builds the stage."""
    slow_generator, fast_generator, adapter = start_components(config)
    return Stage(
        trained={
            "adapter": from_component(run, adapter, config.optimizer),
            "fake_score": from_component(run, adapter, config.fake_score_optimizer),
        },
        frozen={
            "slow_generator": slow_generator,
            "fast_generator": fast_generator,
            "slow_adapter": adapter,
        },
        updates=distribution_matching_updates("adapter", dmd_losses(config), config.matching),
        export=export_fast_adapter(fast_generator, adapter, config.matching.student),
        bounds=BOUNDS,
    )


def dmd_losses(config: DMDConfig) -> tuple[LossFn, LossFn]:
    """Losses of "adapter" and of "fake_score", an adapter on the SlowGenerator."""
    roles = Roles(
        student=lambda models: (models["fast_generator"], models["adapter"]),
        real_score=lambda models: (models["slow_generator"], models["slow_adapter"]),
        fake_score=lambda models: (models["slow_generator"], models["fake_score"]),
    )
    return distribution_matching_losses(config.matching, roles, data_conditions)
