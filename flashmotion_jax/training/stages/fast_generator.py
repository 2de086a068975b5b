"""Stage 2, FastGenerator: the generator distilled to a few steps by distribution matching.

The student and both score models start from the SlowGenerator. No adapter is involved, and only
the texts and first frames of the data are used.

Source: FlashMotion section 3.3.
"""

from __future__ import annotations

from flashmotion_jax.config import FastGeneratorConfig, TrainConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.generate import Conditions
from flashmotion_jax.training.stage import (
    ComponentRef,
    Stage,
    export_generator,
    few_step_sampling,
    from_component,
)
from flashmotion_jax.training.stages.distribution_matching import (
    BOUNDS,
    Roles,
    distribution_matching_losses,
    distribution_matching_updates,
)
from flashmotion_jax.training.train_step import LossFn


def build(run: TrainConfig, config: FastGeneratorConfig) -> Stage:
    """Builds the stage."""
    component = ComponentRef(config.slow_generator, "dit")
    return Stage(
        trained={
            "generator": from_component(run, component, config.optimizer),
            "fake_score": from_component(run, component, config.fake_score_optimizer),
        },
        frozen={"slow_generator": component},
        updates=distribution_matching_updates(
            "generator", generator_losses(config), config.matching
        ),
        export=export_generator(component, few_step_sampling(component, config.matching.student)),
        bounds=BOUNDS,
    )


def generator_losses(config: FastGeneratorConfig) -> tuple[LossFn, LossFn]:
    """Losses of "generator" and of "fake_score", with the frozen "slow_generator" as real score."""
    roles = Roles(
        student=lambda models: (models["generator"], None),
        real_score=lambda models: (models["slow_generator"], None),
        fake_score=lambda models: (models["fake_score"], None),
    )
    return distribution_matching_losses(config.matching, roles, _conditions)


def _conditions(batch: Batch) -> Conditions:
    return Conditions(text=batch.text, image_latents=batch.latents[:, :1])
