"""Ablation of Table 3: a discriminator with video cross-attention alone.

    flashmotion train --config configs/stage3_vc.py             # ResNet
    flashmotion train --config configs/stage3_vc.py:controlnet

Hardware: as stage 3. Expect (paper): a little worse than stage 3.
"""

from configs.common import Adapter, variant
from flashmotion_jax.config import DiscriminatorConfig, TrainConfig


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """Stage 3 with video cross-attention alone."""
    return variant(
        adapter, "vc", discriminator=DiscriminatorConfig(semantic=False, trajectory=False)
    )
