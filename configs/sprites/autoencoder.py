"""Sprites, before the stages: the autoencoder of the small model, on whole clips.

    flashmotion train --config configs/sprites/autoencoder.py:first
    flashmotion train --config configs/sprites/autoencoder.py          # the second half

Hardware: two CPU cores, about 0.8 s a step. Expect: of real clips that went through it a box IoU of
.82 after the first half, of .83 [.79, .87] and 28.6 dB after the second (24 held-out clips,
`examples/measure_sprites.py`); the runs after it want .85.
"""

import dataclasses
from typing import Literal

from configs.sprites.common import adamw, autoencoder
from flashmotion_jax.config import TrainConfig

STEPS = 2000


def get_config(half: Literal["first", "second"] = "second") -> TrainConfig:
    """Trained on windows of 9 frames, it lost its colours in the frames after them."""
    names = {"first": "autoencoder_images", "second": "autoencoder_first"}
    run = autoencoder(
        "autoencoder_first" if half == "first" else "autoencoder",
        f"runs/sprites/{names[half]}/model",
        adamw(4e-4, STEPS, weight_decay=0.0),
        STEPS,
        window=17,
    )
    return dataclasses.replace(run, batch_size=4)
