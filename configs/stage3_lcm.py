"""Baseline LCM of Table 1: the adapter by latent consistency on the FastGenerator.

    flashmotion train --config configs/stage3_lcm.py[:ADAPTER]

Hardware: as stage 3. Its teacher is SlowGenerator with SlowAdapter.
Expect (paper): good IoU, the worst FVD.
"""

import dataclasses

from flashmotion_jax.config import DEFAULT_ADAPTER, ConsistentAdapterConfig, TrainConfig

from .common import adapter_optimizer, models, stage3


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3's schedule with another loss."""
    run = stage3(adapter)
    stage = ConsistentAdapterConfig(
        **models(adapter),
        optimizer=dataclasses.replace(adapter_optimizer(adapter), ema_decay=0.95),
    )
    return dataclasses.replace(run, stage=stage, output=f"runs/stage3_lcm_{adapter}")
