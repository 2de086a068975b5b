"""Sprites, stage 1, second half: the adapter goes on with boxes.

    flashmotion train --config configs/sprites/stage1_box.py             # ResNet
    flashmotion train --config configs/sprites/stage1_box.py:controlnet

Hardware: two CPU cores, 0.4 s a step (ControlNet). Expect: its loss begins at 0.27. A ControlNet
of 1,500 steps ended at 0.255; in four steps 24 held-out clips had a box IoU of 46 % [38, 54] with
it, and 33 % [27, 41] without. Three sprites and more take each other's colours.
"""

from configs.sprites.common import Adapter, stage1
from flashmotion_jax.config import TrainConfig

STEPS = 1200
RATES = {"resnet": 1e-3, "controlnet": 4e-4}


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """Half the rates of the masks."""
    return stage1(
        "box", adapter, RATES[adapter], STEPS, f"runs/sprites/stage1_mask_{adapter}/model"
    )
