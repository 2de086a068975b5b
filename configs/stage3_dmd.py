"""Baseline DMD of Table 1: the adapter by distribution matching on the FastGenerator.

    flashmotion train --config configs/stage3_dmd.py             # ResNet
    flashmotion train --config configs/stage3_dmd.py:controlnet

Hardware: as stage 3. Its teacher is SlowGenerator with SlowAdapter.
Expect (paper): low IoU; with a ControlNet it was out of memory on the paper's A100s.
"""

import dataclasses

from configs.common import Adapter, adapter_optimizer, models, stage3
from flashmotion_jax.config import MatchedAdapterConfig, TrainConfig


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """Stage 3's schedule with another loss."""
    run = stage3(adapter)
    stage = MatchedAdapterConfig(
        **models(adapter),
        optimizer=adapter_optimizer(adapter),
        fake_score_optimizer=adapter_optimizer(adapter),
    )
    return dataclasses.replace(run, stage=stage, output=f"runs/stage3_dmd_{adapter}")
