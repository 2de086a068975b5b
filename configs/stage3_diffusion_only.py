"""Ablation of Table 2, without GAN loss: stage 3 by the diffusion loss alone.

    flashmotion train --config configs/stage3_diffusion_only.py[:ADAPTER]

Hardware: as stage 3. Expect (paper): best IoU, blurred videos.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import variant


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3 without discriminator."""
    return variant(adapter, "diffusion_only", adversarial=False)
