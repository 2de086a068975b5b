"""Stage 1, first half: the SlowAdapter on dense mask maps.

    flashmotion train --config configs/stage1_mask.py[:ADAPTER]

Hardware: 16 devices with one video each, as in the paper. On one device: `--set mesh.fsdp=1
--set stage.optimizer.accumulate=16`. The default adapter has 20.8 M parameters and starts from
scratch; one that copies the generator's blocks has 5.3 B.
Expect: adapter/loss/diffusion falls slowly; sample videos begin to follow the masks.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage1


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """4.6 K steps on mask maps."""
    return stage1(adapter, "mask", num_train_steps=4600)
