"""Sprites, before the stages: the autoencoder of the small model, on whole clips.

    flashmotion train --config configs/sprites/autoencoder.py:first
    flashmotion train --config configs/sprites/autoencoder.py          # the second half

Hardware: two CPU cores, about 0.8 s a step. Expect: of real clips that went through it a box IoU of
.82 after the first half, of .83 [.79, .87] and 28.6 dB after the second (24 held-out clips,
`examples/measure_sprites.py`); the runs after it want .85.
"""

import dataclasses

from configs.sprites.common import Half, adamw, autoencoder, in_halves
from flashmotion_jax.config import TrainConfig

STEPS = 2000


def get_config(half: Half = "second") -> TrainConfig:
    """Trained on windows of 9 frames, it lost its colours in the frames after them."""
    name, start = in_halves("autoencoder", half, "runs/sprites/autoencoder_images/model")
    optimizer = adamw(4e-4, STEPS, weight_decay=0.0)
    run = autoencoder(name, start, optimizer, STEPS, window=17)
    return dataclasses.replace(run, batch_size=4)
