"""Sprites, stage 1, first half: an adapter on the multi-step generator, on mask maps.

    flashmotion train --config configs/sprites/stage1_mask.py[:ADAPTER]

Hardware: two CPU cores, 0.7 s per step with the default adapter.
Expect: its loss falls from 0.285 to 0.236; that of an adapter which copies the generator starts to
fall only after a few hundred steps.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage1


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Starts a new adapter."""
    return stage1("mask", adapter)
