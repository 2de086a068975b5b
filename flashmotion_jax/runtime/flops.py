"""Counts the floating-point operations (FLOPs) of a traced program.

Model FLOPs utilization (MFU) is `count_flops(step) / (seconds * num_devices * peak_flops(device))`.
FLOPs are counted in the jaxpr, where a scan still knows its length; XLA's own cost analysis counts
the body of a scan once. What the compiled program of one device does is counted in `perf/hlo.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxprs_in_params

#: Matmuls in cuDNN's fused attention, forward and backward: a custom call that hides them.
CUDNN_MATMULS = {
    "dot_product_attention_fwd_wrapper": 2,
    "dot_product_attention_bwd_wrapper": 5,
}


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Counts the FLOPs of matmuls, convolutions and attention kernels; a multiply-add is two.

    Recomputation counts (`jax.checkpoint` inside a gradient), see `count_jaxpr_flops`. A `cond`
    counts as the mean of its branches, a `shard_map` as the work of all its devices. Convolution
    taps on padding count; the zeros that dilate an input do not. Elementwise work is left out.

    Args:
      function: Traceable function; it is neither compiled nor run.
      *args: Pytrees of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      FLOPs of one call, summed over all devices.

    Raises:
      ValueError: A matmul is inside a loop whose length is only known at run time.
    """
    return count_jaxpr_flops(jax.make_jaxpr(function)(*args))


def count_jaxpr_flops(jaxpr: ClosedJaxpr, *, recomputed: bool = True) -> float:
    """Counts the FLOPs of a traced program, see `count_flops`.

    Args:
      jaxpr: The program, for example `jax.jit(function).trace(*args).jaxpr`.
      recomputed: Count what the backward pass of `jax.checkpoint` computes again; False gives model
        FLOPs.
    """
    return float(_count(jaxpr.jaxpr, recomputed))


def matmul_flops(out: Iterable[int], contracted: Iterable[int]) -> int:
    """FLOPs of a matmul.

    Args:
      out: Shape of the result, batch dimensions included.
      contracted: Sizes of the dimensions that are summed over.
    """
    return 2 * math.prod(out) * math.prod(contracted)


def _count(jaxpr: Jaxpr, recomputed: bool) -> float:
    return sum(_count_equation(equation, recomputed) for equation in jaxpr.eqns)


def _count_equation(equation: JaxprEqn, recomputed: bool) -> float:
    # jax.checkpoint names what its backward pass computes again, in profiles too.
    if not recomputed and "rematted_computation" in str(equation.source_info.name_stack):
        return 0
    match equation.primitive.name:
        case "dot_general":
            return _matmul(equation)
        case "conv_general_dilated":
            return _convolution(equation)
        case name if name in CUDNN_MATMULS:
            return CUDNN_MATMULS[name] * _attention_matmul(equation)
    bodies = [_count(body, recomputed) for body in jaxprs_in_params(equation.params)]
    if not any(bodies):
        return 0
    if equation.primitive.name == "cond":
        return sum(bodies) / len(bodies)
    return _repetitions(equation) * sum(bodies)


def _matmul(equation: JaxprEqn) -> int:
    lhs = _shape(equation.invars[0])
    (contracted, _), _ = equation.params["dimension_numbers"]
    return matmul_flops(_shape(equation.outvars[0]), (lhs[axis] for axis in contracted))


def _convolution(equation: JaxprEqn) -> int:
    kernel, out = _shape(equation.invars[1]), _shape(equation.outvars[0])
    out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    # A kernel holds the input channels of one group only, so groups need no factor.
    flops = matmul_flops(out, kernel) // out_channels
    return flops // math.prod(equation.params["lhs_dilation"])


def _attention_matmul(equation: JaxprEqn) -> int:
    q_BNAE, k_BSAE = _shape(equation.invars[0]), _shape(equation.invars[1])
    return matmul_flops(q_BNAE, (k_BSAE[1],))


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _repetitions(equation: JaxprEqn) -> int:
    """How often the inner programs of an equation run."""
    params = equation.params
    match equation.primitive.name:
        case "scan":
            return params["length"]
        case "pallas_call" if not params["grid_mapping"].num_dynamic_grid_bounds:
            return math.prod(params["grid_mapping"].grid)
        case "shard_map":
            # JAX renamed this parameter in 0.10.
            axes = params.get("newly_manual_axes", params.get("manual_axes", ()))
            return math.prod(params["mesh"].shape[axis] for axis in axes)
        case "while" | "pallas_call" as name:
            raise ValueError(
                f"cannot count the FLOPs of the {name} around a matmul: its length is only known "
                "at run time; use jax.lax.scan, jax.lax.map, or fori_loop with Python integers as "
                "bounds"
            )
    return 1
