"""Baseline LCM of Table 1: the adapter distilled by latent consistency on the FastGenerator.

    flashmotion train --config configs/stage3_lcm.py[:ADAPTER]

Hardware: as for stage 3. The teacher is the SlowGenerator with the SlowAdapter.
Expect (paper): good IoU, the worst FVD.
"""

import dataclasses

from flashmotion_jax.config import DEFAULT_ADAPTER, LCMConfig, TrainConfig

from .common import adapter_optimizer, models, stage3


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3's schedule with another loss."""
    run = stage3(adapter)
    stage = LCMConfig(
        **models(adapter),
        optimizer=dataclasses.replace(adapter_optimizer(adapter), ema_decay=0.95),
    )
    return dataclasses.replace(run, stage=stage, workdir=f"runs/stage3_lcm_{adapter}")
