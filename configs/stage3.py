"""Stage 3: the FastAdapter, by diffusion and adversarial loss on the FastGenerator.

    flashmotion train --config configs/stage3.py[:ADAPTER]

Hardware: the paper's 4 devices, one video each; on one, `--set mesh.fsdp=1
--set stage.optimizer.accumulate=4 --set stage.discriminator_optimizer.accumulate=4`.
Expect: discriminator/accuracy above 0.5 and not near 1; compare adapter/gradient_norm/adversarial
with adapter/weight/diffusion times adapter/gradient_norm/diffusion to judge the scale.
"""

from flashmotion_jax.config import DEFAULT_ADAPTER, TrainConfig

from .common import stage3


def get_config(adapter: str = DEFAULT_ADAPTER) -> TrainConfig:
    """1 K steps."""
    return stage3(adapter)
