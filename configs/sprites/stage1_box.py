"""Sprites, stage 1, second half: the adapter goes on with boxes.

    flashmotion train --config configs/sprites/stage1_box.py             # ResNet
    flashmotion train --config configs/sprites/stage1_box.py:controlnet

Hardware: two CPU cores, 0.17 s a step (ResNet). Expect: on the generator's first half 36 % box IoU
with either adapter, where the generator alone in four steps has 31 % (24 held-out clips): sprites
follow their boxes and dissolve on the way.
"""

from configs.sprites.common import Adapter, stage1
from flashmotion_jax.config import TrainConfig

STEPS = 1000
RATES = {"resnet": 1e-3, "controlnet": 2.5e-4}


def get_config(adapter: Adapter = "resnet") -> TrainConfig:
    """Half the rates of the masks."""
    return stage1(
        "box", adapter, RATES[adapter], STEPS, f"runs/sprites/stage1_mask_{adapter}/model"
    )
