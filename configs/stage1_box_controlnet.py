"""Stage 1, second half: the ControlNet SlowAdapter goes on from masks to sparse boxes.

    flashmotion train --config configs/stage1_box_controlnet.py

Hardware: as the first half, whose result it starts from.
Expect: a step up of adapter/loss/diffusion where the maps change, then as before.
"""

from configs.common import stage1
from flashmotion_jax.config import TrainConfig


def get_config() -> TrainConfig:
    """5.4 K steps."""
    return stage1("controlnet", "box", steps=5400, start_from="runs/stage1_mask_controlnet/model")
