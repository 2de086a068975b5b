"""Ablation of Table 3: a discriminator with semantic self-attention and video cross-attention.

    flashmotion train --config configs/stage3_ss_vc.py[:ADAPTER]

Hardware: as for stage 3. Expect (paper): a little worse than stage 3.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, DiscriminatorConfig, TrainConfig

from .common import variant


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3 with semantic self-attention and video cross-attention."""
    return variant(adapter, "ss_vc", discriminator=DiscriminatorConfig(trajectory=False))
