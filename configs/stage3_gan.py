"""Baseline GAN of Table 1: the adversarial loss alone, with a plain discriminator.

    flashmotion train --config configs/stage3_gan.py[:ADAPTER]

Hardware: as for stage 3. The paper does not say how this baseline differs from stage 3 without the
diffusion loss, which has its own row; here its discriminator also lacks FlashMotion's layers.
Expect (paper): worse than stage 3 in every metric.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, DiscriminatorConfig, ScaleConfig, TrainConfig

from .common import variant


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3 with a scale of 0 and video cross-attention alone."""
    return variant(
        adapter,
        "gan",
        diffusion_scale=ScaleConfig(slope=0.0),
        discriminator=DiscriminatorConfig(semantic=False, trajectory=False),
    )
