"""Stage 1, points: the SlowAdapter, trained further on points in place of boxes.

    flashmotion cache --config configs/cache_magicdata.py:points
    flashmotion train --config configs/stage1_points.py[:ADAPTER]

Hardware: as for boxes, whose result it starts from. Conditions become sparser: masks, boxes,
points.
Expect: adapter/loss/diffusion jumps up at the change of maps, then falls slowly again. Not trained
at full size yet; the number of steps is that of boxes.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage1


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """5.4 K steps on maps of points."""
    start_from = f"runs/stage1_box_{adapter}/model"
    return stage1(adapter, "points", num_train_steps=5400, start_from=start_from)
