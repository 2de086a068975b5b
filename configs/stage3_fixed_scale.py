"""Ablation of Table 2, without dynamic scale: lambda is 1 throughout.

    flashmotion train --config configs/stage3_fixed_scale.py[:ADAPTER]

Hardware: as stage 3. Expect (paper): IoU kept, blurred videos.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, ScaleConfig, TrainConfig

from .common import variant


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3 with a scale of 1."""
    return variant(adapter, "fixed_scale", diffusion_scale=ScaleConfig(slope=0.0, offset=1.0))
