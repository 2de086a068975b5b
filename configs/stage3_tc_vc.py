"""Ablation of Table 3: a discriminator with trajectory and video cross-attention.

    flashmotion train --config configs/stage3_tc_vc.py             # ResNet
    flashmotion train --config configs/stage3_tc_vc.py:controlnet

Hardware: as stage 3. Expect (paper): a little worse than stage 3.
"""

from configs.common import Adapter, variant
from flashmotion_jax.config import DiscriminatorConfig, TrainConfig


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """Stage 3 with trajectory and video cross-attention."""
    return variant(adapter, "tc_vc", discriminator=DiscriminatorConfig(semantic=False))
