"""Sprites, stage 1: an adapter trained as a LoRA of the generator, on mask or box maps.

    flashmotion train --config configs/sprites/stage1_lora.py[:mask|box]

Hardware: two CPU cores. `examples/sprites_lora.sh` runs both halves and compares the result with
the adapter whose weights are all trained.
Expect: a box IoU of at least 95 % of that adapter's. Not measured yet: both halves take as many
steps as its own, which is hours.
"""

import dataclasses
from typing import Any, cast, get_args

from flashmotion_jax.config import (
    LORAS,
    CachedMapKind,
    LoRAConfig,
    SlowAdapterConfig,
    TrainConfig,
)
from flashmotion_jax.runtime.errors import UserError

from .common import SCHEDULES, optimizer, stage1

ADAPTER = next(iter(LORAS)).removesuffix("_lora")
#: A sixth of the generator's width, as rank 32 is a hundredth of that of Wan2.2.
RANK = 32
#: LoRAs take the learning rate of an adapter from scratch: their matrices start from zero.
RATE = 0


def get_config(map_kind: str = "mask") -> TrainConfig:
    """The first half; with "box" the second, which trains the LoRA of the first further.

    Raises:
      UserError: There is no such kind of maps.
    """
    if map_kind not in get_args(CachedMapKind):
        raise UserError(f"maps {map_kind!r}; expected mask or box")
    start_from = "runs/sprites/stage1_lora_mask/model" if map_kind == "box" else ""
    run = stage1(cast(Any, map_kind), ADAPTER, start_from)
    learning_rate, _ = SCHEDULES[map_kind][RATE]
    stage = dataclasses.replace(
        cast(SlowAdapterConfig, run.stage),
        lora=LoRAConfig(rank=RANK),
        optimizer=optimizer(learning_rate, run.num_train_steps),
    )
    return dataclasses.replace(run, stage=stage, workdir=f"runs/sprites/stage1_lora_{map_kind}")
