"""Stage 2: the FastGenerator, distilled to four steps by distribution matching.

    flashmotion train --config configs/stage2.py

Hardware: the paper's 16 devices, one video each. Two trained and one frozen copy of the generator.
Expect: generator/temporal_variance stays near 1. Below 0.3 the run warns: the student has begun to
copy its first frame, which others saw within 200 steps.
"""

from flashmotion_jax.config import FastGeneratorConfig, MeshConfig, OptimizerConfig, TrainConfig

from .common import SLOW_GENERATOR


def get_config() -> TrainConfig:
    """5.5 K steps, every fifth of the generator."""
    groups = {"": 1.0, "blocks": 1.0}
    return TrainConfig(
        stage=FastGeneratorConfig(
            slow_generator=SLOW_GENERATOR,
            optimizer=OptimizerConfig(
                learning_rate=5e-7, beta1=0.0, ema_decay=0.99, ema_start=200, groups=groups
            ),
            fake_score_optimizer=OptimizerConfig(learning_rate=1e-7, beta1=0.0, groups=groups),
        ),
        output="runs/stage2",
        steps=5500,
        batch_size=16,
        mesh=MeshConfig(fsdp=16),
    )
