"""Ablation of Table 3: a discriminator with trajectory and video cross-attention.

    flashmotion train --config configs/stage3_tc_vc.py[:ADAPTER]

Hardware: as for stage 3. Expect (paper): a little worse than stage 3.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, DiscriminatorConfig, TrainConfig

from .common import variant


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3 with trajectory and video cross-attention."""
    return variant(adapter, "tc_vc", discriminator=DiscriminatorConfig(semantic=False))
