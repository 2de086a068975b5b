"""Stage 1, first half: the ResNet SlowAdapter on dense mask maps.

    flashmotion train --config configs/stage1_mask_resnet.py

Hardware: the paper's 16 devices, one video each; on one, `--set mesh.fsdp=1
--set stage.optimizer.accumulate=16`. The adapter has 20.8 M parameters from scratch.
Expect: adapter/loss/diffusion falls slowly; sample videos begin to follow the masks.
"""

from configs.common import stage1
from flashmotion_jax.config import TrainConfig


def get_config() -> TrainConfig:
    """4.6 K steps."""
    return stage1("resnet", "mask", steps=4600)
