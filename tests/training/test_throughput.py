"""Speed of a run, by a clock that the test sets, and the FLOPs of its updates."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import pytest

from flashmotion_jax.config import OptimizerConfig
from flashmotion_jax.runtime.flops import count_jaxpr_flops
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.sharding import make_mesh
from flashmotion_jax.training import throughput
from flashmotion_jax.training.abstract import abstract_step_args
from flashmotion_jax.training.inputs import open_inputs
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.throughput import Throughput
from flashmotion_jax.training.train_state import create_train_state
from flashmotion_jax.training.train_step import LossTerm, Update, make_train_step
from helpers import run_small, toy


def test_a_wait_counts_in_the_line_during_which_it_happened(monkeypatch):
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


def test_mfu_counts_the_updates_without_tracing_them_again(monkeypatch):
    """The adapter's update runs on both steps, of two seconds each; the peak is 100 FLOP/s."""
    now, traces = 0.0, []
    monkeypatch.setattr(throughput, "time", types.SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(throughput, "peak_flops", lambda device: 100.0)

    def loss_fn(models, batch, keys, step):
        traces.append(step)
        return {"loss": LossTerm(jnp.sum(models["adapter"].prepare(batch.trajectory, None)))}, {}

    config = OptimizerConfig(learning_rate=1e-3)
    step = make_train_step(Update("adapter", loss_fn), config)
    with jax.set_mesh(make_mesh()):
        measured = Throughput(4, 2)
        state = program(functools.partial(create_train_state, config=config))(toy.Adapter(1))
        for number in range(2):
            args = (state, {}, toy.batch(4), jax.random.key(number), jnp.int32(number))
            measured.count_flops("adapter", step, args)
            state, _ = step(*args)
            now += 2.0
            line = measured.measure(number, ["adapter"])
    assert len(traces) == 1
    # A matmul forward, and one of the same size for the gradient of its weights.
    videos, (frames, height, width, channels) = 4, toy.SHAPE
    matmul = 2 * videos * frames * height * width * channels**2
    assert line["mfu"] == pytest.approx(2 * 2 * matmul / (4.0 * 100.0))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    run_small.prepare(folder)
    return folder


@pytest.mark.parametrize("stage", run_small.STAGES)
def test_model_flops_do_not_depend_on_rematerialization(prepared, stage):
    """jax.checkpoint names what it computes again; if it no longer does, this fails."""

    def flops(remat, recomputed):
        config = run_small.config(prepared, "", stage, f"remat={remat}")
        with jax.set_mesh(make_mesh()):
            built = build_stage(config)
            args = abstract_step_args(config, built, open_inputs(config, built))
            return {
                update.model: count_jaxpr_flops(
                    make_train_step(update, built.trained[update.model].optimizer)
                    .trace(*args[update.model])
                    .jaxpr,
                    recomputed=recomputed,
                )
                for update in built.updates
            }

    expected = flops("none", True)
    assert all(expected.values())
    assert flops("full", False) == flops("dots", False) == expected
    recomputing = flops("full", True)
    assert all(recomputing[model] > expected[model] for model in expected)
