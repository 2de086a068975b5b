"""Sprites, stage 1, points: the adapter, trained further on points in place of boxes.

    flashmotion cache --config configs/sprites/cache.py:points
    flashmotion train --config configs/sprites/stage1_points.py[:ADAPTER]

Hardware: two CPU cores, as for boxes.
Expect: not trained yet. A point does not say how large an object is, so ATE should rise from masks
to boxes to points, and stay far below that of no adapter.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage1


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """Continues from boxes."""
    return stage1("points", adapter, start_from=f"runs/sprites/stage1_box_{adapter}/model")
