"""Sprites, stage 1, second half: the adapter goes on with boxes.

    flashmotion train --config configs/sprites/stage1_box.py             # ResNet
    flashmotion train --config configs/sprites/stage1_box.py:controlnet

Hardware: two CPU cores, 0.4 s a step (ControlNet). Expect: a loss of 0.27 from the first step, and
less at the end: not measured yet.
"""

from configs.sprites.common import Adapter, stage1
from flashmotion_jax.config import TrainConfig

STEPS = 2000
RATES = {"resnet": 1e-3, "controlnet": 4e-4}


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """Half the rates of the masks."""
    return stage1(
        "box", adapter, RATES[adapter], STEPS, f"runs/sprites/stage1_mask_{adapter}/model"
    )
