"""Counts of compiled programs against arithmetic on paper."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flashmotion_jax.perf.hlo import dimensions, parse_hlo, size_in_bytes
from flashmotion_jax.perf.hlo_counts import Counts
from flashmotion_jax.perf.hlo_counts import count as count_program
from flashmotion_jax.runtime.sharding import make_mesh

#: As libtpu writes a loop: no count, a bound in the condition and a step of 2 in the body.
LOOP_WITHOUT_COUNT = """HloModule m

%body (p: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %p = (s32[], f32[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,8]{1,0} get-tuple-element(%p), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (s32[], f32[8,8]{1,0}) tuple(%next, %y)
}

%condition (p.1: (s32[], f32[8,8])) -> pred[] {
  %p.1 = (s32[], f32[8,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %bound = s32[] constant(BOUND)
  ROOT %less = pred[] compare(%i.1, %bound), direction=LT
}

ENTRY %main (a: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %a = (s32[], f32[8,8]{1,0}) parameter(0)
  ROOT %w = (s32[], f32[8,8]{1,0}) while(%a), condition=%condition, body=%body
}
"""

#: One asynchronous gather that is written twice, and a combined scatter of two arrays.
ASYNCHRONOUS = """HloModule m

ENTRY %main (a: bf16[4,8], b: f32[16]) -> bf16[16,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = f32[16]{0} parameter(1)
  %s = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%a), frontend_attributes={chain_id="7"}
  %s.1 = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%a), frontend_attributes={chain_id="7"}
  %r = ((f32[16]{0}, f32[16]{0}), (f32[4]{0}, /*index=1*/f32[4]{0})) reduce-scatter-start(%b, %b)
  ROOT %d = bf16[16,8]{1,0} all-gather-done(%s)
}
"""


def count(text) -> Counts:
    return count_program(parse_hlo(text))


def compiled(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arguments).compile().as_text()


def test_a_scan_is_counted_as_often_as_it_runs():
    def layers(x, w_LDD):
        def layer(x, w):
            return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=3)[0], None

        return jax.lax.scan(layer, x, w_LDD)[0]

    counts = count(compiled(layers, (4, 16), (5, 16, 16)))
    assert counts.flops == 5 * 3 * 2 * 4 * 16 * 16
    assert counts.unknown_loops == 0


def test_every_branch_is_counted():
    def choose(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w)

    assert count(compiled(choose, (4, 16), (16, 16))).flops == 3 * 2 * 4 * 16 * 16


def test_taps_outside_of_the_image_are_not_counted():
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    # Rows 0, 2, 4 of 5 with a border see 2 + 3 + 2 taps, columns 2 + 3 * 5 + 2.
    flops = 2 * 2 * 6 * 4 * 7 * 19
    assert count(compiled(convolve, (2, 5, 7, 4), (3, 3, 4, 6))).flops == flops


def test_gathered_weights_are_counted_layer_by_layer():
    mesh = make_mesh(fsdp=8)

    def place(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    def layers(x, w_LDD):
        def layer(x, w):
            return jnp.tanh(x @ jax.sharding.reshard(w, PartitionSpec(None, None))), None

        return jax.lax.scan(layer, x, w_LDD)[0]

    with jax.set_mesh(mesh):
        x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=place("fsdp", None))
        w = jax.ShapeDtypeStruct((5, 32, 32), jnp.float32, sharding=place(None, "fsdp", None))
        counts = count(jax.jit(layers).lower(x, w).compile().as_text())
    assert counts.flops == 5 * 2 * (16 // 8) * 32 * 32
    assert set(counts.collectives) == {"all-gather"}
    assert counts.collectives["all-gather"].runs == 5
    assert counts.collectives["all-gather"].payload_bytes == 5 * 32 * 32 * 4


@pytest.mark.parametrize(("bound", "runs"), [("6", 3), ("7", 4)])
def test_a_loop_without_a_count_runs_from_its_bound_and_step(bound, runs):
    assert count(LOOP_WITHOUT_COUNT.replace("BOUND", bound)).flops == runs * 2 * 8**3


def test_a_loop_that_cannot_be_read_is_reported():
    text = LOOP_WITHOUT_COUNT.replace("constant(BOUND)", "parameter(1)")
    assert count(text).unknown_loops == 1


def test_asynchronous_collectives_are_counted_once_and_whole():
    collectives = count(ASYNCHRONOUS).collectives
    assert (collectives["all-gather"].runs, collectives["reduce-scatter"].runs) == (1, 1)
    assert collectives["all-gather"].payload_bytes == 16 * 8 * 2
    assert collectives["reduce-scatter"].payload_bytes == 2 * 16 * 4


def test_shapes():
    assert dimensions("f32[2,3]{1,0}") == [2, 3]
    assert dimensions("s32[]") == []
    assert size_in_bytes("(bf16[4,8]{1,0:T(8,128)}, pred[3], f8e4m3fn[5], u4[6])") == 64 + 3 + 5 + 3


def test_other_text_raises():
    with pytest.raises(ValueError, match="has no ENTRY"):
        count("module @jit_f {}")
