"""Stage 1, SlowAdapter: an adapter on the frozen generator, by the flow-matching loss.

Source: FlashMotion section 3.2; timesteps and text dropout as Wan2.2 is trained.
"""

from __future__ import annotations

import jax

from flashmotion_jax.config import SlowAdapterConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.generate import Conditions
from flashmotion_jax.training.slow_generator import flow_matching_loss
from flashmotion_jax.training.turn import Draws, Losses, Metrics, Models, Term


def adapter_losses(config: SlowAdapterConfig) -> Losses:
    """The loss of "adapter", on the frozen "slow_generator"; "empty_text" stands for no prompt."""

    def losses(
        models: Models, batch: Batch, draws: Draws, step: jax.Array
    ) -> tuple[dict[str, Term], Metrics]:
        del step
        networks = (models["slow_generator"], models["adapter"])
        loss = flow_matching_loss(
            config, networks, data_conditions(batch), models["empty_text"], batch, draws
        )
        return {"diffusion": Term(loss)}, {}

    return losses


def data_conditions(batch: Batch) -> Conditions:
    """A batch's own text, first frame and trajectory."""
    return Conditions(
        text=batch.text,
        image_latents=batch.latents[:, :1],
        trajectory_latents=batch.trajectory,
    )
