"""Ablation of Table 2, without the GAN loss: stage 3 with the diffusion loss alone.

    flashmotion train --config configs/stage3_diffusion_only.py[:ADAPTER]

Hardware: as for stage 3. Expect (paper): the best IoU, blurred videos.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import variant


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3 without a discriminator."""
    return variant(adapter, "diffusion_only", adversarial=False)
