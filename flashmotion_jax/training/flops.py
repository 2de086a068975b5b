"""Multiply-adds of a program, and how many a device can do: what a training run's MFU is made of.

Model FLOPs utilisation is `count_flops(step) / (seconds * devices * peak_flops(device))`. The count
is read from the traced program, where a scan still knows its length; XLA's own cost analysis counts
a scan's body once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from flashmotion_jax.runtime.errors import UserError

#: Dense bfloat16 operations per second by words of `device_kind`; the first entry that fits counts.
#: From the makers' data sheets. A TPU7x chip (2307e12) is two devices; a MIG slice has no figure.
PEAK_FLOPS = {
    "MIG": None,
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "L4": 121e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
}

#: cuDNN's fused attention holds no matmuls that could be seen: their number, forward and backward.
CUDNN_MATMULS = {
    "dot_product_attention_fwd_wrapper": 2,
    "dot_product_attention_bwd_wrapper": 5,
}


def peak_flops(device: jax.Device) -> float | None:
    """Dense bfloat16 operations per second of a device; None if they are not known."""
    for words, peak in PEAK_FLOPS.items():
        if re.search(rf"\b{words}\b", device.device_kind):
            return peak
    return None


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Operations of all matmuls, convolutions and attention kernels, two a multiply-add.

    What is computed twice is counted twice (`jax.checkpoint` in a gradient): for model FLOPs, trace
    the model without rematerialisation. Of a `cond` the mean of its branches counts, of a
    `shard_map` the work of all its devices. Taps of a convolution that fall on its padding count,
    the zeros that a dilated input is spread with do not. Elementwise work is left out.

    Args:
      function: traceable; it is neither compiled nor run.
      *args: pytrees of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      The operations of one call, of all devices together.

    Raises:
      UserError: a matmul in a loop whose length is known only when it runs.
    """
    return float(_count(jax.make_jaxpr(function)(*args).jaxpr))


def _count(jaxpr: Jaxpr) -> float:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: JaxprEqn) -> float:
    match equation.primitive.name:
        case "dot_general":
            return _matmul(equation)
        case "conv_general_dilated":
            return _convolution(equation)
        case name if name in CUDNN_MATMULS:
            return CUDNN_MATMULS[name] * _attention_matmul(equation)
    bodies = [_count(body) for body in jaxprs_in_params(equation.params)]
    if not any(bodies):
        return 0
    if equation.primitive.name == "cond":
        return sum(bodies) / len(bodies)
    return _repetitions(equation) * sum(bodies)


def _matmul(equation: JaxprEqn) -> int:
    lhs, out = _shape(equation.invars[0]), _shape(equation.outvars[0])
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * math.prod(out) * math.prod(lhs[axis] for axis in contracted)


def _convolution(equation: JaxprEqn) -> int:
    kernel, out = _shape(equation.invars[1]), _shape(equation.outvars[0])
    out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    # A kernel holds the input channels of one group only, so groups need no factor.
    products = math.prod(out) * math.prod(kernel) // out_channels
    return 2 * products // math.prod(equation.params["lhs_dilation"])


def _attention_matmul(equation: JaxprEqn) -> int:
    q_BNAE, k_BSAE = _shape(equation.invars[0]), _shape(equation.invars[1])
    return 2 * math.prod(q_BNAE) * k_BSAE[1]


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _repetitions(equation: JaxprEqn) -> int:
    """How often the bodies of an equation run."""
    params = equation.params
    match equation.primitive.name:
        case "scan":
            return params["length"]
        case "pallas_call" if not params["grid_mapping"].num_dynamic_grid_bounds:
            return math.prod(params["grid_mapping"].grid)
        case "shard_map":
            # The name changed within jax 0.10.
            axes = params.get("newly_manual_axes", params.get("manual_axes", ()))
            return math.prod(params["mesh"].shape[axis] for axis in axes)
        case "while" | "pallas_call" as name:
            raise UserError(
                f"cannot count the {name} around a matmul, whose length is known only when it "
                "runs: use jax.lax.scan, jax.lax.map, or fori_loop with bounds of Python integers"
            )
    return 1
