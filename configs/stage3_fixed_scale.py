"""Ablation of Table 2, without the dynamic scale: lambda is always 1.

    flashmotion train --config configs/stage3_fixed_scale.py[:ADAPTER]

Hardware: as for stage 3. Expect (paper): the same IoU, blurred videos.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, ScaleConfig, TrainConfig

from .common import variant


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3 with a scale of 1."""
    return variant(adapter, "fixed_scale", diffusion_scale=ScaleConfig(slope=0.0, offset=1.0))
