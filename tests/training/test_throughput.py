"""Speed of a run, by a clock that the test sets."""

from __future__ import annotations

import types

import pytest

from flashmotion_jax.training import throughput
from flashmotion_jax.training.throughput import Throughput


def test_a_wait_counts_in_the_time_that_it_was_in(monkeypatch):
    now = 0.0
    monkeypatch.setattr(throughput, "time", types.SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(throughput, "peak_flops", lambda device: None)
    measured = Throughput(8, 2)
    lines = []
    # As in training, a step is read when the batch of the next is there.
    for step, (wait, rest) in enumerate([(1.0, 1.0), (3.0, 1.0), (5.0, 1.0), (0.0, 1.0)]):
        with measured.waiting():
            now += wait
        if step:
            lines.append(measured.measure(step - 1, ["adapter"]))
        now += rest
    lines.append(measured.measure(3, ["adapter"]))
    shown = [line for line in lines if line]
    assert [line["data_wait"] for line in shown] == pytest.approx([9 / 11, 0])
    assert [line["seconds_per_step"] for line in shown] == pytest.approx([5.5, 1.0])
