"""Muon: orthogonalized updates for matrices, AdamW for all other parameters.

Source: Jordan et al., https://kellerjordan.github.io/posts/muon; Liu et al., arXiv:2502.16982, for
the scale of the updates, which lets Muon and AdamW share a learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax
from flax import nnx
from optax.contrib import MuonDimensionNumbers

from flashmotion_jax.config import OptimizerConfig

#: Root mean square of an update at a learning rate of 1, close to AdamW's.
UPDATE_RMS = 0.2


def muon(
    config: OptimizerConfig, rate: optax.Schedule, parameters: Mapping[str, nnx.Variable]
) -> optax.GradientTransformation:
    """Muon for matrices and convolution kernels, AdamW for the rest.

    Args:
      config: Momentum, AdamW's betas, weight decay.
      rate: Learning-rate schedule.
      parameters: Dotted path to variable of every parameter.

    Returns:
      A transformation of `{path: array}`.
    """
    matrices = {path: dimension_numbers(variable) for path, variable in parameters.items()}

    def get_dimension_numbers(arrays: Any) -> dict[str, MuonDimensionNumbers | None]:
        return {path: matrices[path] for path in arrays}

    transform = optax.contrib.muon(
        rate,
        beta=config.momentum,
        eps=config.eps,
        weight_decay=config.weight_decay,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=get_dimension_numbers,
        consistent_rms=UPDATE_RMS,
    )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if jax.sharding.get_abstract_mesh().empty:
            return transform.update(updates, state, params)
        # Muon reshapes sharded kernels and multiplies them with themselves. The compiler chooses
        # the shardings inside; updates and state keep those of the parameters.
        specs = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (updates, state))
        auto_update: Any = jax.sharding.auto_axes(transform.update, out_sharding=specs)
        return auto_update(updates, state, params)

    return optax.GradientTransformation(transform.init, update)


def dimension_numbers(variable: nnx.Variable) -> MuonDimensionNumbers | None:
    """Returns which axes of a parameter are inputs and outputs of a matrix; None for no matrix.

    The taps of a convolution count as inputs. Each layer of a stack is a matrix of its own.
    """
    axes = variable.get_metadata().get("axes", ())
    if len(axes) < 2 or axes[-1] == "norm":
        return None
    num_axes = variable.get_value().ndim
    inputs = range(num_axes - len(axes), num_axes - 1)
    return MuonDimensionNumbers(tuple(inputs), (num_axes - 1,))
