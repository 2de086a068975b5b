"""The compiled program is read: matmuls in 8 bits are there, and only those of floats are not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.perf.hlo import parse_hlo
from flashmotion_jax.perf.hlo_counts import count
from helpers import tiny

LAYERS = tiny.DIT.num_layers
#: Of a block: q, k, v, o twice, and the two of the feed-forward network.
IN_BLOCKS = 10 * LAYERS
#: Patches, text (2), timesteps (3) and the head.
OUTSIDE = 7


def matmuls(dtype):
    """Runs of matmuls with weights of one step of a DiT on a CPU, by dtype."""
    module = components.abstract_module("dit", tiny.DIT, dtype)
    latents = jax.ShapeDtypeStruct((1, 3, 4, 6, 48), jnp.float32)
    timesteps = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    text = jax.ShapeDtypeStruct((1, tiny.DIT.text_len, tiny.DIT.text_dim), jnp.float32)

    def step(module, latents, timesteps, text):
        return module(latents, timesteps, text)

    compiled = jax.jit(step).lower(module, latents, timesteps, text).compile()
    return count(parse_hlo(compiled.as_text())).matmuls


@pytest.fixture(scope="module")
def of_floats():
    return sum(matmuls("float32").values())


def test_floats_have_no_matmul_in_8_bits():
    assert "s8" not in matmuls("float32")


def test_all_layers_of_all_blocks_multiply_int8(of_floats):
    found = matmuls("int8")
    assert found.pop("s8") == IN_BLOCKS
    # What is left is attention, and the layers outside of the blocks.
    assert sum(found.values()) == of_floats - IN_BLOCKS >= OUTSIDE


def test_a_cpu_has_no_matmul_of_float8():
    """Which the message of `require_matmuls` says: XLA converts them, without a word."""
    assert "f8e4m3fn" not in matmuls("fp8")


def test_matmuls_of_cublas_are_counted():
    text = """
ENTRY %main (x: s8[8,16], w: s8[4,16]) -> s32[8,4] {
  %x = s8[8,16]{1,0} parameter(0)
  %w = s8[4,16]{1,0} parameter(1)
  ROOT %gemm = (s32[8,4]{1,0}, s8[64]{0}) custom-call(%x, %w), \
custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["1"]}}}
}
"""
    counts = count(parse_hlo(text))
    assert counts.matmuls == {"s8": 1}
    assert counts.eight_bit_flops == 2 * 8 * 4 * 16
