"""Baseline DMD of Table 1: the adapter distilled by distribution matching on the FastGenerator.

    flashmotion train --config configs/stage3_dmd.py[:ADAPTER]

Hardware: as for stage 3. The teacher is the SlowGenerator with the SlowAdapter.
Expect (paper): low IoU; the adapter that copies the DiT ran out of memory on the paper's A100s.
"""

import dataclasses

from flashmotion_jax.config import DEFAULT_ADAPTER, DMDConfig, MatchingConfig, TrainConfig

from .common import STUDENT, adapter_optimizer, models, stage3


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Stage 3's schedule with another loss."""
    run = stage3(adapter)
    stage = DMDConfig(
        **models(adapter),
        optimizer=adapter_optimizer(adapter),
        fake_score_optimizer=adapter_optimizer(adapter),
        matching=MatchingConfig(student=STUDENT),
    )
    return dataclasses.replace(run, stage=stage, workdir=f"runs/stage3_dmd_{adapter}")
