"""Ablation of Table 2, without the diffusion loss: stage 3 with the adversarial loss alone.

    flashmotion train --config configs/stage3_adversarial_only.py[:ADAPTER]

Hardware: as for stage 3. Expect (paper): low IoU.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, ScaleConfig, TrainConfig

from .common import variant


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3 with a scale of 0."""
    return variant(adapter, "adversarial_only", diffusion_scale=ScaleConfig(slope=0.0))
