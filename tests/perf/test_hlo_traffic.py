"""Bytes that programs move, against arithmetic on paper."""

from __future__ import annotations

import pytest

from flashmotion_jax.perf import hlo_traffic
from flashmotion_jax.perf.hlo import parse_hlo

#: A loop of 10 that reads one of 10 matrices each time, and writes one row of a buffer in place.
SCAN = """HloModule m

%slice_and_add (p0: f32[10,8,8], p1: s32[], p2: f32[8,8]) -> f32[8,8] {
  %p0 = f32[10,8,8]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %p2 = f32[8,8]{1,0} parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,8,8]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,8,8}
  %flat = f32[8,8]{1,0} bitcast(%row)
  ROOT %sum = f32[8,8]{1,0} add(%flat, %p2)
}

%store (q0: f32[10,8,8], q1: f32[8,8], q2: s32[]) -> f32[10,8,8] {
  %q0 = f32[10,8,8]{2,1,0} parameter(0)
  %q1 = f32[8,8]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  %one = f32[1,8,8]{2,1,0} bitcast(%q1)
  ROOT %new = f32[10,8,8]{2,1,0} dynamic-update-slice(%q0, %one, %q2, %zero.1, %zero.1)
}

%body (p: STATE) -> STATE {
  %p = STATE parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %w = f32[10,8,8]{2,1,0} get-tuple-element(%p), index=1
  %x = f32[8,8]{1,0} get-tuple-element(%p), index=2
  %y = f32[10,8,8]{2,1,0} get-tuple-element(%p), index=3
  %f = f32[8,8]{1,0} fusion(%w, %i, %x), kind=kLoop, calls=%slice_and_add
  %g = f32[10,8,8]{2,1,0} fusion(%y, %f, %i), kind=kLoop, calls=%store
  ROOT %t = STATE tuple(%i, %w, %f, %g)
}

%condition (c: STATE) -> pred[] {
  %c = STATE parameter(0)
  %j = s32[] get-tuple-element(%c), index=0
  %n = s32[] constant(10)
  ROOT %less = pred[] compare(%j, %n), direction=LT
}

ENTRY %main (a: STATE) -> STATE {
  %a = STATE parameter(0)
  ROOT %l = STATE while(%a), condition=%condition, body=%body
}
""".replace("STATE", "(s32[], f32[10,8,8]{2,1,0}, f32[8,8]{1,0}, f32[10,8,8]{2,1,0})")


def count_traffic(text):
    return hlo_traffic.count_traffic(parse_hlo(text))


MATRIX = 8 * 8 * 4
INDEX = 4


def test_a_scan_reads_and_writes_slices():
    add = MATRIX + INDEX + MATRIX + MATRIX
    store = MATRIX + INDEX + MATRIX
    assert count_traffic(SCAN) == 10 * (add + store)


@pytest.mark.parametrize(
    ("layout", "read"), [("{1,0:T(8,128)}", MATRIX), ("{1,0:T(8,128)S(1)}", 0)]
)
def test_what_lies_on_the_chip_is_not_counted(layout, read):
    text = f"""HloModule m

ENTRY %main (a: f32[8,8]) -> f32[8,8] {{
  %a = f32[8,8]{layout} parameter(0)
  ROOT %n = f32[8,8]{{1,0}} negate(%a)
}}
"""
    assert count_traffic(text) == read + MATRIX


def test_a_whole_operand_counts_where_it_is_used_whole():
    text = SCAN.replace("f32[8,8]{1,0} add(%flat, %p2)", "f32[10,8,8]{2,1,0} negate(%p0)")
    assert count_traffic(text) > count_traffic(SCAN)
