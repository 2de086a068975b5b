"""Stage 1, second half: the SlowAdapter continues with sparse boxes.

    flashmotion train --config configs/stage1_box.py[:ADAPTER]

Hardware: as the first half, whose result it starts from.
Expect: a step up of adapter/loss/diffusion where the maps change, then as before.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage1


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """5.4 K steps."""
    return stage1(adapter, "box", steps=5400, start_from=f"runs/stage1_mask_{adapter}/model")
