"""Our modules as PyTorch's: weights go through the converters' tables, strictly."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.converters.mapping import make_entries


def state_dict(module, table):
    """The module's weights under PyTorch's names, as torch tensors."""
    import torch

    parameters = flat_parameters(module)
    return {
        key: torch.tensor(np.ascontiguousarray(array))
        for entry in make_entries(parameters, table)
        for key, array in entry.scatter(np.asarray(parameters[entry.target].get_value()))
    }


def channels_first(x):
    """`[B, T, h, w, C]` to torch's `[B, C, T, h, w]`."""
    import torch

    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())


def channels_last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)
