"""Sprites, stage 1, second half: the adapter goes on with boxes.

    flashmotion train --config configs/sprites/stage1_box.py[:ADAPTER]

Hardware: two CPU cores, 0.8 s a step of the default adapter. Expect: its loss falls
from 0.266 to 0.260. Three sprites and more take each other's colors.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage1


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """The second half."""
    return stage1("box", adapter, start_from=f"runs/sprites/stage1_mask_{adapter}/model")
