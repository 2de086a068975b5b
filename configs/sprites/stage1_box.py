"""Sprites, stage 1, second half: the adapter goes on with boxes.

    flashmotion train --config configs/sprites/stage1_box.py             # ResNet
    flashmotion train --config configs/sprites/stage1_box.py:controlnet

Hardware: two CPU cores, 0.17 s a step (ResNet). Expect: from the generator's first half, distilled
to four steps, a box IoU of 38 % in place of 31 % without (24 held-out clips): sprites go where
their boxes go and lose their shape on the way.
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
