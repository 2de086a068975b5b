"""Files of the networks of FID and FVD with random weights."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.evaluation.features.weight_files import abstract_network, save_network


def write_network(folder, network, **sizes):
    """Writes random weights; `sizes` make the network narrow."""
    rng = np.random.default_rng(5)
    arrays = {}
    for name, variable in flat_parameters(abstract_network(network, **sizes)).items():
        noise = rng.standard_normal(variable.get_value().shape).astype(np.float32)
        if name.endswith("kernel"):
            noise *= np.sqrt(2 / np.prod(noise.shape[:-1]))
        else:
            noise = (1 if name.endswith(("scale", "variance")) else 0) + 0.05 * np.abs(noise)
        arrays[name] = noise
    return save_network(folder, network, arrays)
