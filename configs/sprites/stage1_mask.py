"""Sprites, stage 1, first half: an adapter on the multi-step generator, by masks.

    flashmotion train --config configs/sprites/stage1_mask.py             # ResNet
    flashmotion train --config configs/sprites/stage1_mask.py:controlnet

Hardware: two CPU cores, 0.7 s a step (ResNet). Expect: its loss falls from 0.285 to 0.236. A
ControlNet's stays at the generator's for some hundred steps, until it tells objects apart.
"""

from configs.sprites.common import Adapter, stage1
from flashmotion_jax.config import TrainConfig

STEPS = 800
RATES = {"resnet": 2e-3, "controlnet": 7e-4}


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """A ResNet learns from nothing, a ControlNet from a copy of the generator: other rates."""
    return stage1("mask", adapter, RATES[adapter], STEPS)
