"""Several processes train as one, each with a device and a shard of the weights and the batch."""

from __future__ import annotations

import json
import re
import signal

import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from helpers import run_small
from helpers.together import LIMIT_SECONDS, RUN_SECONDS, Run

#: Arguments: where, seconds that a step takes at least, and those of `run_small`.
TRAIN = """
import sys, time
from flashmotion_jax.runtime.distributed import run_together
from flashmotion_jax.training.trainer import Trainer
from helpers import run_small

def slowed(run_step):
    def slow(self):
        time.sleep(float(sys.argv[2]))
        run_step(self)
    return slow

Trainer._run_step = slowed(Trainer._run_step)
sys.exit(run_together("train", sys.argv[1], lambda: run_small.main(*sys.argv[3:])))
"""


def train(folder, prepared, output, count, *overrides, stage="slow_adapter", pace=0.0):
    split = [f"mesh.fsdp={count}", *overrides]
    return Run(folder, TRAIN, count, pace, prepared, output, stage, *split)


def parameters(folder):
    adapter = components.load_component(folder / "model", "adapters/resnet", "float32")
    return {
        path: np.asarray(variable.get_value())
        for path, variable in components.flat_parameters(adapter).items()
    }


def assert_same_run(output, expected):
    """The same losses in all steps, and the same adapter."""
    for path, array in parameters(expected).items():
        np.testing.assert_allclose(parameters(output)[path], array, atol=1e-5)
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (expected, output)
    ]
    for one, other in zip(*logs, strict=True):
        for name in one:
            if "/loss/" in name:
                assert other[name] == pytest.approx(one[name], abs=1e-5)


def resumed_at(text):
    found = re.search(r"resuming from step (\d+)", text)
    return int(found[1]) if found else 0


def test_a_run_resumes_after_one_of_its_processes_is_killed(tmp_path):
    run_small.prepare(tmp_path)
    output, steps = tmp_path / "run", ("num_train_steps=8", "save_every=2")
    first = train(tmp_path / "first", tmp_path, output, 2, *steps, pace=1.0)
    first.wait_for("saved step 2")
    first.signal(1, signal.SIGKILL)
    statuses = first.end(LIMIT_SECONDS)
    assert statuses == [1, -signal.SIGKILL], first.text(0)
    assert "process 1 sent no heartbeat" in first.text(0)
    second = train(tmp_path / "second", tmp_path, output, 2, *steps)
    assert second.end(RUN_SECONDS) == [0, 0], second.text(0)
    assert resumed_at(second.text(0)) >= 2


@pytest.mark.slow
def test_a_run_of_four_processes_resumes_with_two(tmp_path):
    """A checkpoint resumes on another mesh, with the numbers of one device."""
    run_small.prepare(tmp_path)
    output, options = tmp_path / "run", ("batch_size=4", "num_train_steps=12", "save_every=6")
    first = train(tmp_path / "first", tmp_path, output, 4, *options, pace=1.0)
    first.wait_for("saved step 6")
    first.signal(2, signal.SIGTERM)
    assert first.end(LIMIT_SECONDS) == [143] * 4, first.text(0)
    stopped = {re.search(r"stopped (\d+)", first.text(process))[1] for process in range(4)}
    assert len(stopped) == 1
    second = train(tmp_path / "second", tmp_path, output, 2, *options)
    assert second.end(RUN_SECONDS) == [0, 0], second.text(0)
    assert resumed_at(second.text(0)) == int(stopped.pop())

    run_small.main(tmp_path, tmp_path / "one", "slow_adapter", *options)
    assert_same_run(output, tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["slow_generator", "fast_generator", "fast_adapter"])
def test_two_processes_train_checkpoint_and_export_as_one(tmp_path, stage):
    run_small.prepare(tmp_path)
    run = train(tmp_path / "logs", tmp_path, tmp_path / "two", 2, "num_train_steps=8", stage=stage)
    assert run.end(RUN_SECONDS) == [0, 0], run.text(0)
    assert "saved step 8" in run.text(0)
    assert "saved step" not in run.text(1)

    run_small.main(tmp_path, tmp_path / "one", stage, "num_train_steps=8")
    if stage == "fast_adapter":
        assert_same_run(tmp_path / "two", tmp_path / "one")
