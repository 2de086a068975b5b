"""Sprites, stage 1, second half: the adapter goes on with boxes.

    flashmotion train --config configs/sprites/stage1_box.py             # ResNet
    flashmotion train --config configs/sprites/stage1_box.py:controlnet

Hardware: two CPU cores, 0.8 s a step (ResNet). Expect: its loss falls from 0.266 to 0.260. Three
sprites and more take each other's colors.
"""

from configs.sprites.common import Adapter, stage1
from flashmotion_jax.config import TrainConfig

STEPS = {"resnet": 1000, "controlnet": 500}
RATES = {"resnet": 1e-3, "controlnet": 4e-4}


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """Half the rates of the masks."""
    return stage1(
        "box", adapter, RATES[adapter], STEPS[adapter], f"runs/sprites/stage1_mask_{adapter}/model"
    )
