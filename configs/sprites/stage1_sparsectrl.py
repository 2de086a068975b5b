"""Sprites, stage 1, SparseCtrl: the sparse adapter, on masks or, from these, boxes of some frames.

    flashmotion cache --config configs/sprites/cache.py:frames
    flashmotion train --config configs/sprites/stage1_sparsectrl.py          # masks
    flashmotion train --config configs/sprites/stage1_sparsectrl.py:box      # boxes

Hardware: two CPU cores, as for the ControlNet.
Expect: not trained yet. Stage 3 is `configs/sprites/stage3.py:sparsectrl`; stage 2 has no adapter.
"""

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.runtime.errors import UserError

from .common import stage1

ADAPTER = "sparsectrl"


def get_config(map_kind: str = "mask") -> TrainConfig:
    """As many steps as a ControlNet has."""
    if map_kind == "mask":
        return stage1("mask", ADAPTER)
    if map_kind == "box":
        return stage1("box", ADAPTER, start_from=f"runs/sprites/stage1_mask_{ADAPTER}/model")
    raise UserError(f"maps {map_kind!r}; expected mask or box")
