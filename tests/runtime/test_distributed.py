"""Processes that are killed, raise, or are asked to stop: the others end too, and say why."""

from __future__ import annotations

import signal

import jax
import pytest

from flashmotion_jax.cli import main as cli
from helpers.together import LIMIT_SECONDS, Run

#: A loop of collectives, as training is one. The argument is what happens, and to which process.
LOOP = """
import os, signal, sys, time
import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from flashmotion_jax.runtime.distributed import run_together

event, _, victim = sys.argv[2].partition("@")

def loop():
    mesh = jax.make_mesh((jax.device_count(),), ("x",))
    split = NamedSharding(mesh, PartitionSpec("x"))
    add = jax.jit(lambda x: x + x.sum(), out_shardings=split)
    x = jax.jit(lambda: jnp.zeros(jax.device_count()), out_shardings=split)()
    for step in range(2000):
        x = add(x).block_until_ready()
        if step == 3:
            print("running", flush=True)
        if step == 5 and victim == str(jax.process_index()) and event == "disk":
            raise OSError("the disk is full")
        if step == 5 and victim == str(jax.process_index()) and event == "bug":
            raise RuntimeError("a bug")
        if multihost_utils.reached_preemption_sync_point(step):
            print("stopped after", step, flush=True)
            return 143
        if event == "nothing" and step == 20:
            return 0
        time.sleep(0.1)
    return 0

sys.exit(run_together("loop", sys.argv[1], loop))
"""


def run_loop(folder, event, count=2):
    """Statuses and texts of a run in which something happens to a process."""
    name, _, victim = event.partition("@")
    run = Run(folder, LOOP, count, event)
    try:
        for process in range(count):
            run.wait_for("running", process)
        if name.startswith("SIG"):
            run.signal(int(victim), getattr(signal, name))
        others = [process for process in range(count) if process != int(victim or -1)]
        if name == "SIGSTOP":  # cannot end, and need not
            stopped = run.processes.pop(int(victim))
            try:
                statuses = run.end(LIMIT_SECONDS)
            finally:
                stopped.kill()
                stopped.wait()
        else:
            statuses = run.end(LIMIT_SECONDS)
        return statuses, [run.text(process) for process in others]
    finally:
        for process in run.processes:
            process.kill()


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_one_is_killed(tmp_path, count):
    statuses, others = run_loop(tmp_path / "run", "SIGKILL@1", count)
    assert statuses[1] == -signal.SIGKILL
    assert all(status == 1 for i, status in enumerate(statuses) if i != 1)
    for text in others:
        assert "process 1 sent no heartbeat for 15 s" in text
        assert "the same command resumes from the last one" in text


def test_one_raises(tmp_path):
    statuses, (text,) = run_loop(tmp_path / "run", "disk@1")
    assert statuses == [1, 1]
    assert "loop: process 1 ended with status 1; its own message says why" in text


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_one_is_asked_to_stop_and_all_do_after_the_same_step(tmp_path, count):
    statuses, others = run_loop(tmp_path / "run", "SIGTERM@1", count)
    assert statuses == [143] * count
    assert len({text.split("stopped after")[1].split()[0] for text in others}) == 1


@pytest.mark.slow
def test_all_come_to_the_end(tmp_path):
    statuses, texts = run_loop(tmp_path / "run", "nothing")
    assert statuses == [0, 0], texts


@pytest.mark.slow
@pytest.mark.parametrize("event", ["disk@0", "bug@0", "bug@1", "SIGTERM@0", "SIGKILL@0"])
def test_whichever_process_it_is(tmp_path, event):
    statuses, (text,) = run_loop(tmp_path / "run", event)
    if event == "SIGTERM@0":
        assert statuses == [143, 143]
    else:
        assert all(statuses)
    # That process 0 was killed, jax itself says.
    assert any(words in text for words in ("process ", "stopped after", "fatal errors"))


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_one_hangs(tmp_path, process):
    statuses, _ = run_loop(tmp_path / "run", f"SIGSTOP@{process}")
    assert all(statuses)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("coordinator_address should be defined."), 2, "JAX detects no cluster here"),
        (RuntimeError("DEADLINE_EXCEEDED: barrier"), 1, "did not find each other within 300 s"),
    ],
)
def test_processes_that_cannot_join_say_why(monkeypatch, capsys, error, status, message):
    def initialize(**options):
        assert options["heartbeat_timeout_seconds"] < LIMIT_SECONDS
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    words = ["train", "--config", "configs/stage2.py", "--distributed", "auto"]
    assert cli.main(words) == status
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("where", ["2/2@host:1", "1@host:1", "host:1", "0/2@host"])
def test_invalid_places_are_status_2(where, capsys):
    words = ["train", "--config", "configs/stage2.py", "--distributed", where]
    assert cli.main(words) == 2
    assert "expected 'auto', or PROCESS/COUNT@HOST:PORT" in capsys.readouterr().err
