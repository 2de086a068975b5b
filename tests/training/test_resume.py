"""Runs that are killed, stopped, resumed and rejected, as processes with tiny models."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.models import load_models
from flashmotion_jax.config import MeshConfig
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.train_state import TrainState, to_arrays
from flashmotion_jax.training.trainer import train
from flashmotion_jax.training.workdir import export_model, open_workdir
from helpers import compiling, run_small, small_cache, tiny
from helpers.run_small import STEPS

SCRIPT = Path(__file__).parents[1] / "helpers" / "run_small.py"
PROCESS_SECONDS = 300


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Checkpoint and latent cache, which all processes share."""
    folder = tmp_path_factory.mktemp("prepared")
    run_small.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(prepared):
    """Runs a stage without interruption, once per stage."""
    runs = {}

    def make(stage, *overrides):
        if (stage, *overrides) not in runs:
            output = prepared / "-".join([stage, *overrides])
            finish(start(prepared, output, stage, *overrides))
            runs[stage, *overrides] = output
        return runs[stage, *overrides]

    return make


def start(prepared, output, stage, *overrides):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, SCRIPT.parents[1:3])),
        "XLA_FLAGS": compiling.FLAGS,
    }
    command = [sys.executable, SCRIPT, prepared, output, stage, *overrides]
    # Without a buffer, `communicate` gets what `read_until` has left.
    return subprocess.Popen(
        command, env=environment, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process):
    """Standard output and error of a process that must succeed."""
    out, err = (text.decode() for text in process.communicate(timeout=PROCESS_SECONDS))
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out, err


def read_until(process, pattern):
    """The lines of standard error up to the first that has the pattern."""
    lines = []
    for line in process.stderr:
        lines.append(line.decode())
        if re.search(pattern, lines[-1]):
            return "".join(lines)
    raise AssertionError(f"no {pattern!r} in\n{''.join(lines)}")


def kill(process, delay):
    """Kills a process after some seconds: the rest of its standard error, None if it had ended."""
    time.sleep(delay)
    process.kill()
    err = process.communicate()[1]
    return err.decode() if process.returncode == -signal.SIGKILL else None


def reported(text):
    return [int(step) for step in re.findall(r"saved step (\d+)", text)]


def resumed_at(text):
    found = re.search(r"resuming from step (\d+)", text)
    return int(found[1]) if found else 0


def arrays_of(output, step):
    """All arrays of a checkpoint, read with orbax alone, and the position in the data."""
    folder = output / "checkpoints" / str(step)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(folder / "state").item_metadata.tree
        args = ocp.args.PyTreeRestore(
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        )
        arrays = checkpointer.restore(folder / "state", args=args)
    return arrays | {"data": json.loads((folder / "data" / "metadata").read_text())}


def losses_of(output):
    """The log without metrics that depend on the clock."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key == "step" or "/" in key} for line in lines]


def assert_same_run(actual, expected, steps=STEPS):
    arrays, others = arrays_of(actual, steps), arrays_of(expected, steps)
    assert arrays.keys() == others.keys()
    for name, array in others.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    assert losses_of(actual) == losses_of(expected)
    assert [line["step"] for line in losses_of(actual)] == list(range(steps))


MUON = ("slow_generator", "stage.optimizer.kind=muon")


@pytest.mark.parametrize("stage", [*((name,) for name in run_small.STAGES), MUON], ids="-".join)
def test_a_killed_run_ends_like_an_uninterrupted_one(prepared, uninterrupted, tmp_path, stage):
    expected = uninterrupted(*stage)
    output, delay = tmp_path / "run", random.Random(stage[0]).uniform(0, 1)
    while True:
        process = start(prepared, output, *stage)
        before = read_until(process, "saved step")
        rest = kill(process, delay)
        if rest is not None and STEPS not in reported(before + rest):
            break
        shutil.rmtree(output)  # it was done already, or all but ended
        delay /= 2
    last = max(reported(before + rest))
    _, err = finish(start(prepared, output, *stage))
    print(f"killed {delay:.3f} s after the first checkpoint; {last} reported, resumed:\n{err}")
    assert last <= resumed_at(err) < STEPS
    assert_same_run(output, expected)


def test_checkpoints_hold_the_states_of_all_trained_models(uninterrupted):
    """`assert_same_run` compares these arrays; it would pass if there were none."""
    arrays = arrays_of(uninterrupted("fast_adapter"), STEPS)
    for prefix in ("adapter.params", "adapter.opt_state", "adapter.ema", "discriminator.params"):
        assert any(name.startswith(f"states.{prefix}") for name in arrays), prefix
    assert arrays["states.discriminator.num_updates"] == STEPS
    assert arrays["states.adapter.num_updates"] == STEPS // 2
    assert arrays["key"].shape == (2,)
    assert arrays["data"]["step"] == STEPS
    assert not any("generator" in name for name in arrays)  # frozen weights are not copied
    assert "adapter/loss/adversarial" in losses_of(uninterrupted("fast_adapter"))[1]


def test_resuming_with_more_steps_and_after_sigterm(prepared, uninterrupted, tmp_path):
    """Three steps, finished; then all, which SIGTERM stops on the way; then the rest."""
    output = tmp_path / "run"
    out, _ = finish(start(prepared, output, "slow_adapter", "num_train_steps=3"))
    assert out == "finished 3\n"
    process = start(prepared, output, "slow_adapter")
    assert "resuming from step 3" in read_until(process, "saved step")
    process.terminate()
    out, err = finish(process)
    step = int(re.fullmatch(r"stopped (\d+)\n", out)[1])
    assert 3 < step < STEPS and reported(err)[-1] == step
    assert arrays_of(output, step)["data"]["step"] == step
    _, err = finish(start(prepared, output, "slow_adapter", "keep=3", "num_threads=2"))
    assert resumed_at(err) == step
    assert_same_run(output, uninterrupted("slow_adapter"))


@pytest.mark.slow
def test_twenty_kills_lose_no_reported_step(prepared, uninterrupted, tmp_path):
    """At random points of loading, compiling, training and writing."""
    steps = "num_train_steps=400"
    output, expected = tmp_path / "run", uninterrupted("slow_adapter", steps)
    draw, last = random.Random(1), 0
    for number in range(20):
        process = start(prepared, output, "slow_adapter", steps)
        before = read_until(process, "TensorBoard")  # the first line, after the imports
        rest = kill(process, draw.uniform(0, 5))
        assert rest is not None, "done before the last kill: give it more steps"
        text = before + rest
        print(f"kill {number}, of {last} reported:\n{text}")
        # A run that was killed before it resumed has reported nothing.
        assert not reported(text) or last <= resumed_at(text) < min(reported(text))
        assert "resuming" not in text or last <= resumed_at(text)
        last = max([last, resumed_at(text), *reported(text)])
    _, err = finish(start(prepared, output, "slow_adapter", steps))
    assert last <= resumed_at(err)
    assert_same_run(output, expected, 400)


@pytest.fixture
def opened(prepared, tmp_path):
    """A run that has started, and a function that opens it again."""

    def reopen(*overrides, resume="auto", **changes):
        config = run_small.config(prepared, tmp_path / "run", "slow_adapter", *overrides)
        config = dataclasses.replace(config, **changes)
        return open_workdir(config, build_stage(config), resume)

    reopen()
    return reopen


def test_another_configuration_is_an_error_that_lists_the_differences(opened, tmp_path):
    with pytest.raises(ValueError) as error:
        opened("seed=3", "stage.optimizer.learning_rate=0.5", "stage.adapter.width=32")
    assert str(error.value).splitlines() == [
        f"{tmp_path / 'run'} holds a run of another configuration; "
        "choose another workdir, or undo:",
        "  seed: 0 -> 3",
        "  stage.adapter.width: 16 -> 32",
        "  stage.optimizer.learning_rate: 0.001 -> 0.5",
    ]


def test_fields_that_do_not_change_the_numbers_may_differ(opened, prepared, tmp_path):
    opened(
        "num_train_steps=99",
        "log_every=7",
        "save_every=5",
        "keep=4",
        "num_threads=1",
        "sample_every=3",
    )
    opened("remat=full", mesh=MeshConfig(data=2, fsdp=2))
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    assert opened(workdir=str(tmp_path / "moved")) == tmp_path / "moved"
    shutil.copytree(prepared / "base", tmp_path / "base")
    opened(f"stage.slow_generator={tmp_path / 'base'}")


def test_other_weights_at_the_same_path_are_an_error(prepared, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(prepared / "base", base)
    config = run_small.config(
        prepared, tmp_path / "run", "slow_adapter", f"stage.slow_generator={base}"
    )
    open_workdir(config, build_stage(config), "auto")
    old = components.read_component(base, "dit").key
    other = components.parameter_readers(tiny.make_dit(seed=5))
    components.save_component(base, "dit", tiny.DIT, other, "float32", overwrite=True)
    new = components.read_component(base, "dit").key
    change = rf"weights of slow_generator: {old[:12]} -> {new[:12]}"
    with pytest.raises(ValueError, match=change):
        open_workdir(config, build_stage(config), "auto")


def test_an_existing_run_is_an_error_with_resume_never(opened, tmp_path):
    with pytest.raises(ValueError, match=r"run holds a run; choose another workdir, delete it, or"):
        opened(resume="never")


def test_another_cache_is_an_error(uninterrupted, prepared, tmp_path):
    output, cache = tmp_path / "run", tmp_path / "cache"
    shutil.copytree(uninterrupted("slow_adapter"), output, symlinks=True)
    small_cache.make_cache(cache, num_rows=9)
    config = run_small.config(
        prepared, output, "slow_adapter", "num_train_steps=9", f"cache={cache}"
    )
    with pytest.raises(ValueError, match=r"the state belongs to other data: cache=.*; resume with"):
        train(config, quiet=True)


def test_a_damaged_run_json_is_an_error(opened, tmp_path):
    (tmp_path / "run" / "run.json").write_text('{"config": ')
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        opened()


def failed_run(prepared, output, *overrides):
    """The error that ends a run, and the steps of its checkpoints, which are finite."""
    config = run_small.config(prepared, output, "slow_adapter", "save_every=1", *overrides)
    with pytest.raises(FloatingPointError) as error:
        train(config, quiet=True)
    steps = sorted(int(path.stem) for path in (output / "checkpoints").glob("*.json"))
    for step in steps:
        arrays = arrays_of(output, step)
        assert all(np.isfinite(arrays[name]).all() for name in arrays.keys() - {"data"})
    return str(error.value), steps


def test_a_non_finite_loss_stops_the_run(prepared, tmp_path, monkeypatch):
    """The latents of one video are so large that their squares overflow."""
    record, huge = small_cache.record, np.full(small_cache.SHAPE, 1e25, np.float32)

    def spoiled_record(row, kinds):
        changes = {"latents": huge} if row == 4 else {}
        return dataclasses.replace(record(row, kinds), **changes)

    monkeypatch.setattr(small_cache, "record", spoiled_record)
    small_cache.make_cache(tmp_path / "cache", num_rows=10, dtype="float32")
    message, steps = failed_run(
        prepared,
        tmp_path / "run",
        f"cache={tmp_path / 'cache'}",
        "stage.optimizer.groups={'': 1.0, 'blocks': 0.1}",
    )
    step = int(re.match(r"step (\d+): ", message)[1])
    assert "adapter/loss/diffusion is inf" in message
    assert "adapter/gradient_norm/blocks is nan" in message
    assert step > 1 and steps == [step - 1, step]
    assert [line["step"] for line in losses_of(tmp_path / "run")] == list(range(step))


def test_an_update_that_overflows_stops_the_run(prepared, tmp_path):
    """All losses are finite, but the weights of one group are not."""
    message, steps = failed_run(
        prepared,
        tmp_path / "run",
        "stage.optimizer.learning_rate=10",
        "stage.optimizer.warmup_updates=1",  # the first update has a rate of 0
        "stage.optimizer.groups={'': 1e-9, 'blocks': 3e38}",
    )
    fault = r"after step 2, (\d+) arrays are not finite, for example states.adapter"
    assert re.match(fault, message)[1] == "16"  # and of the moving average
    assert steps == [1]


def test_the_result_is_a_checkpoint(uninterrupted, prepared, tmp_path):
    """Its weights are the moving average; other components are links; the folder can be moved."""
    uninterrupted("slow_adapter"), uninterrupted("fast_generator")
    home = tmp_path / "home"
    shutil.copytree(prepared, home, symlinks=True)
    for stage, kind, model_name in (
        ("slow_adapter", "adapters/resnet", "adapter"),
        ("fast_generator", "dit", "generator"),
    ):
        model = home / stage / "model"
        links = {path.name: path for path in model.iterdir() if path.is_symlink()}
        others = {"dit", "vae", "tiny_vae", "text_encoder", "tokenizer"} - {kind}
        assert links.keys() == others
        for name, path in links.items():
            assert not path.readlink().is_absolute()
            assert path.resolve() == home / "base" / name
        arrays = arrays_of(home / stage, STEPS)
        trained = components.flat_parameters(components.load_component(model, kind, "float32"))
        assert trained
        for name, variable in trained.items():
            expected = arrays[f"states.{model_name}.ema.{name}.value"]
            np.testing.assert_array_equal(variable.get_value(), expected, err_msg=name)
    models = load_models(home / "fast_generator" / "model", "float32")
    sampling = models.config.sampling
    assert (sampling.sampler, sampling.num_frames) == ("few_step", 9)
    assert sampling.denoising_steps == (1000, 750, 500, 250)


def test_without_a_moving_average_the_parameters_are_exported(prepared, tmp_path):
    config = run_small.config(prepared, tmp_path, "fast_generator")
    trained = tiny.make_dit(seed=3)
    state = TrainState(trained, opt_state=None, ema=None, num_updates=np.int32(0))
    model = export_model(tmp_path, build_stage(config).export, state)
    written = to_arrays(components.load_component(model, "dit", "float32"))
    jax.tree.map(np.testing.assert_array_equal, written, to_arrays(trained))


def test_the_adapter_is_exported_to_pytorch_and_back(uninterrupted, prepared, tmp_path):
    pytest.importorskip("torch")
    from flashmotion_jax.cli.convert import main

    model = uninterrupted("slow_adapter") / "model"
    file, back = tmp_path / "adapter.safetensors", tmp_path / "back"
    assert main(["export", str(model), str(file), "--adapter", "resnet"]) == 0
    ignore = shutil.ignore_patterns("adapters")
    shutil.copytree(prepared / "base", back, ignore=ignore)
    assert main(["flashmotion", str(file), str(back), "--dtype", "float32"]) == 0
    keys = {components.read_component(path, "adapters/resnet").key for path in (model, back)}
    assert len(keys) == 1
    assert keys != {components.read_component(prepared / "base", "adapters/resnet").key}
