"""Sprites, stage 2: the generator distilled to four steps by distribution matching.

    flashmotion train --config configs/sprites/stage2.py

Hardware: two CPU cores, 1.05 s per step.
Expect: generator/temporal_variance rises from 0.4 to 1.0; generator/loss/distribution_matching
falls from 0.47 to 0.24.
"""

from flashmotion_jax.config import (
    FastGeneratorConfig,
    MatchingConfig,
    TimestepsConfig,
    TrainConfig,
)

from .common import SLOW_GENERATOR, STUDENT, optimizer, run

STEPS = 1200
EVERY = 5


def get_config() -> TrainConfig:
    """240 updates of the student; the fake score tracks it at four times its learning rate."""
    return run(
        "stage2",
        FastGeneratorConfig(
            slow_generator=SLOW_GENERATOR,
            optimizer=optimizer(5e-5, STEPS // EVERY, beta1=0.0, decay="constant", ema_decay=0.97),
            fake_score_optimizer=optimizer(2e-4, STEPS, beta1=0.0, decay="constant"),
            matching=MatchingConfig(
                student=STUDENT,
                real_guidance=2.0,
                timesteps=TimestepsConfig(shift=3.0, low=20.0, high=980.0),
                student_every=EVERY,
            ),
        ),
        STEPS,
        save_every=500,
    )
