"""Stage 2, FastGenerator: the generator distilled to a few steps by distribution matching.

Student, real and fake score all start from the SlowGenerator; no adapter takes part, and of the
data only texts and first frames.

Source: FlashMotion section 3.3.
"""

from __future__ import annotations

from flashmotion_jax.config import FastGeneratorConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.generate import Conditions
from flashmotion_jax.training.distribution_matching import Roles, matching_losses
from flashmotion_jax.training.turn import Losses


def generator_losses(config: FastGeneratorConfig) -> tuple[Losses, Losses]:
    """The losses of "generator" and of "fake_score", against the frozen "slow_generator"."""
    roles = Roles(
        student=lambda models: (models["generator"], None),
        real=lambda models: (models["slow_generator"], None),
        fake=lambda models: (models["fake_score"], None),
    )
    return matching_losses(config.matching, roles, _conditions)


def _conditions(batch: Batch) -> Conditions:
    return Conditions(text=batch.text, image_latents=batch.latents[:, :1])
