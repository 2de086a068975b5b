"""Stage 3: the FastAdapter on the FastGenerator, by diffusion and adversarial loss.

    flashmotion train --config configs/stage3.py[:ADAPTER]

Hardware: 4 devices with one video each, as in the paper. On one device: `--set mesh.fsdp=1
--set stage.optimizer.accumulate=4 --set stage.discriminator_optimizer.accumulate=4`.
Expect: discriminator/accuracy above 0.5 and well below 1. To judge lambda, compare
adapter/gradient_norm/adversarial with adapter/weight/diffusion times
adapter/gradient_norm/diffusion.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage3


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """1 K steps, one in five of them an update of the adapter."""
    return stage3(adapter)
