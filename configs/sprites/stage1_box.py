"""Sprites, stage 1, second half: the adapter, trained further on box maps.

    flashmotion train --config configs/sprites/stage1_box.py[:ADAPTER]

Hardware: two CPU cores, 0.8 s per step with the default adapter.
Expect: its loss falls from 0.266 to 0.260. With three or more sprites, colors get mixed up.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage1


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Continues from the first half."""
    return stage1("box", adapter, start_from=f"runs/sprites/stage1_mask_{adapter}/model")
