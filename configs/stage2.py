"""Stage 2: the FastGenerator, distilled to four steps by distribution matching.

    flashmotion train --config configs/stage2.py

Hardware: 16 devices with one video each, as in the paper; they hold two trained copies of the
generator and a frozen one.
Expect: generator/temporal_variance stays near 1. Below 0.3 the run warns: the student has started
to copy its first frame, which others have seen within 200 steps.
"""

from flashmotion_jax.config import (
    FastGeneratorConfig,
    MatchingConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)

from .common import SLOW_GENERATOR, STUDENT


def get_config() -> TrainConfig:
    """5.5 K steps, one in five of them an update of the generator."""
    groups = {"": 1.0, "blocks": 1.0}
    return TrainConfig(
        stage=FastGeneratorConfig(
            slow_generator=SLOW_GENERATOR,
            optimizer=OptimizerConfig(
                learning_rate=5e-7, beta1=0.0, ema_decay=0.99, ema_start=200, groups=groups
            ),
            fake_score_optimizer=OptimizerConfig(learning_rate=1e-7, beta1=0.0, groups=groups),
            matching=MatchingConfig(student=STUDENT),
        ),
        workdir="runs/stage2",
        num_train_steps=5500,
        batch_size=16,
        mesh=MeshConfig(fsdp=16),
    )
