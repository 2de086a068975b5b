"""Stage 1, SparseCtrl: the sparse adapter, on masks or, from these, on boxes of some frames.

    flashmotion cache --config configs/cache_magicdata.py:frames
    flashmotion train --config configs/stage1_sparsectrl.py          # masks
    flashmotion train --config configs/stage1_sparsectrl.py:box      # boxes

Hardware: as for the ControlNet, 16 devices.
Expect: adapter/loss/diffusion stays above that of a ControlNet, which sees all frames. Not trained
at full size yet. Stage 3 is `configs/stage3.py:sparsectrl`, and stage 2 has no adapter.
"""

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.runtime.errors import UserError

from .common import stage1

ADAPTER = "sparsectrl"


def get_config(map_kind: str = "mask") -> TrainConfig:
    """As many steps as the paper's adapters have."""
    if map_kind == "mask":
        return stage1(ADAPTER, "mask", num_train_steps=4600)
    if map_kind == "box":
        start_from = f"runs/stage1_mask_{ADAPTER}/model"
        return stage1(ADAPTER, "box", num_train_steps=5400, start_from=start_from)
    raise UserError(f"maps {map_kind!r}; expected mask or box")
