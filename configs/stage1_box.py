"""Stage 1, second half: the SlowAdapter, trained further on sparse box maps.

    flashmotion train --config configs/stage1_box.py[:ADAPTER]

Hardware: as for the first half, whose result it starts from.
Expect: adapter/loss/diffusion jumps up at the change of maps, then falls slowly again.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage1


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """5.4 K steps on box maps."""
    start_from = f"runs/stage1_mask_{adapter}/model"
    return stage1(adapter, "box", num_train_steps=5400, start_from=start_from)
