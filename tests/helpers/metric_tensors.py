"""Random tensors of small Inception and I3D networks, under the published keys."""

from __future__ import annotations

import numpy as np

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.converters.mapping import make_entries
from flashmotion_jax.evaluation.features.conversion import table
from flashmotion_jax.evaluation.features.weight_files import abstract_network

SIZES = {"inception": {"divide": 16}, "i3d": {"divide": 16, "classes": 10}}


def tensors(network):
    """Random tensors under the published keys, and what else the files hold."""
    abstract = flat_parameters(abstract_network(network, **SIZES[network]))
    rng = np.random.default_rng(3)
    arrays = {
        entry.keys[0]: rng.standard_normal(entry.source_shape).astype(np.float32)
        for entry in make_entries(abstract, table(network, list(abstract)))
    }
    if network == "inception":
        arrays |= {"fc.weight": np.ones((8, 128), np.float32), "fc.bias": np.ones(8, np.float32)}
        arrays["Mixed_5b.branch1x1.bn.num_batches_tracked"] = np.zeros((), np.int64)
    return arrays
