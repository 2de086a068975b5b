"""Two real processes train as one: each has a device, a part of the weights and of the batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training import run_small

from flashmotion_jax.models import checkpoint

TRAIN = """
import sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from training import run_small
run_small.main(*sys.argv[3:])
"""


def train(prepared, output, process, address):
    tests = Path(__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests))),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    arguments = [address, process, prepared, output, "fast_adapter", "mesh.fsdp=2"]
    command = [sys.executable, "-c", TRAIN, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def parameters(folder):
    adapter = checkpoint.load_component(folder / "model", "adapters/resnet", "float32")
    return {
        path: np.asarray(variable.get_value())
        for path, variable in checkpoint.flat_parameters(adapter).items()
    }


@pytest.mark.slow
def test_two_processes_train_checkpoint_and_export_as_one(tmp_path):
    run_small.prepare(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    runs = [train(tmp_path, tmp_path / "two", process, address) for process in range(2)]
    errors = [run.communicate(timeout=300)[1].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert "saved step 8" in errors[0]
    assert "saved step" not in errors[1]

    run_small.main(tmp_path, tmp_path / "one", "fast_adapter")
    for path, array in parameters(tmp_path / "one").items():
        np.testing.assert_allclose(parameters(tmp_path / "two")[path], array, atol=1e-5)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for one, two in zip(*logs, strict=True):
        for name in one:
            if "/loss/" in name:
                assert two[name] == pytest.approx(one[name], abs=1e-5)
