"""Sprites, stage 2: the generator distilled to four steps by distribution matching.

    flashmotion train --config configs/sprites/stage2.py

Hardware: two CPU cores, 0.5 s a step. Expect: generator/temporal_variance rises from 0.6 to 1.1; of
24 held-out clips a sharpness of 0.51 and a video distance of 2.9.
"""

from configs.sprites.common import SLOW_GENERATOR, STUDENT, adamw, run
from flashmotion_jax.config import (
    FastGeneratorConfig,
    MatchingConfig,
    TimestepsConfig,
    TrainConfig,
)

STEPS = 1500
EVERY = 5


def get_config() -> TrainConfig:
    """300 updates of the student; its fake score is to outrun it, with four times its rate."""
    return run(
        "stage2",
        FastGeneratorConfig(
            slow_generator=SLOW_GENERATOR,
            optimizer=adamw(5e-5, STEPS // EVERY, beta1=0.0, decay="constant", ema_decay=0.97),
            fake_score_optimizer=adamw(2e-4, STEPS, beta1=0.0, decay="constant"),
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
