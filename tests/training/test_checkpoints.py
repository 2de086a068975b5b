"""Checkpoints of a small model: kept, written by killed processes, restored onto other meshes."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from flashmotion_jax.runtime import sharding
from flashmotion_jax.training.abstract import with_shardings
from flashmotion_jax.training.checkpoints import Checkpoints, Snapshot
from flashmotion_jax.training.train_state import apply_gradients, create_train_state
from helpers.small_checkpoints import (
    OPTIMIZER,
    Net,
    assert_same,
    make_snapshot,
    restore,
    save_all,
    steps_of,
)


@pytest.fixture(autouse=True)
def mesh():
    with jax.set_mesh(sharding.make_mesh()):
        yield


def test_a_checkpoint_is_restored_bit_for_bit(tmp_path, capfd):
    snapshot = make_snapshot(3)
    gradients = jax.tree.map(jnp.ones_like, snapshot.states["net"].params)
    moved = jax.jit(lambda state: apply_gradients(state, gradients, OPTIMIZER, jnp.int32(5)))
    state = moved(moved(snapshot.states["net"]))
    snapshot = Snapshot({"net": state}, jax.random.fold_in(snapshot.key, 7), snapshot.data)
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(6, snapshot, {})
    assert checkpoints.wait() == [6]
    checkpoints.close()
    step, restored, messages = restore(tmp_path)
    assert (step, messages) == (6, [])
    assert_same(restored, snapshot)
    assert int(restored.states["net"].num_updates) == 2
    assert capfd.readouterr().err == ""


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert restore(tmp_path / "new") == (None, None, [])


def test_arrays_may_be_donated_while_they_are_written(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    expected = Snapshot({"big": jnp.arange(2**22, dtype=jnp.float32)}, jax.random.key(0), {})
    spoil = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    arrays = expected.states["big"] + 0
    checkpoints.save(1, Snapshot({"big": arrays}, expected.key, {}), {})
    jax.block_until_ready(spoil(arrays))
    checkpoints.wait()
    layout = {"big": jax.ShapeDtypeStruct((2**22,), jnp.float32)}
    restored = checkpoints.restore(layout, lambda _: None)
    checkpoints.close()
    assert_same(restored[1], expected)


def test_a_step_is_saved_once_its_manifest_is_written(tmp_path):
    checkpoints = Checkpoints(tmp_path, 9)
    assert checkpoints.save(2, make_snapshot(2), {}) == []
    assert checkpoints.save(4, make_snapshot(4), {}) == [2]
    assert (tmp_path / "2.json").exists() and not (tmp_path / "4.json").exists()
    assert checkpoints.wait() == [4]
    assert checkpoints.commit() == checkpoints.wait() == []
    checkpoints.save(6, make_snapshot(6), {})
    while not (committed := checkpoints.commit()):
        pass
    assert committed == [6]
    checkpoints.close()
    assert steps_of(tmp_path) == [2, 4, 6]


def test_the_latest_checkpoints_are_kept(tmp_path):
    save_all(tmp_path, 1, 2, 3, 4, 5, keep=3)
    assert steps_of(tmp_path) == [3, 4, 5]


def test_the_last_complete_checkpoint_is_kept_until_the_next_is(tmp_path):
    """A kill between a checkpoint and its manifest must not cost the step reported before."""
    save_all(tmp_path, 2, 4, keep=1)
    (tmp_path / "4.json").unlink()
    step, snapshot, _ = restore(tmp_path, keep=1)
    assert step == 2
    assert_same(snapshot, make_snapshot(2))


def test_the_best_checkpoint_is_kept_too(tmp_path):
    losses = {1: 5.0, 2: 1.5, 3: 4.0, 4: 3.0, 5: 2.0, 6: 7.0}
    metrics = {step: {"loss": loss, "other": -loss} for step, loss in losses.items()}
    save_all(tmp_path, 1, 2, 3, keep=2, keep_best="loss", metrics=metrics)
    save_all(tmp_path, 4, 5, 6, keep=2, keep_best="loss", metrics=metrics)
    assert steps_of(tmp_path) == [2, 5, 6]


@pytest.mark.parametrize("before", ["", "other"])
def test_keep_best_may_change(tmp_path, before):
    metrics = {step: {"loss": float(step), "other": 0.0} for step in range(1, 7)}
    save_all(tmp_path, 1, 2, keep=2, keep_best=before, metrics=metrics)
    save_all(tmp_path, 3, 4, 5, 6, keep=2, keep_best="loss", metrics=metrics)
    assert steps_of(tmp_path) == [3, 5, 6]


def test_keep_best_must_be_a_metric_of_the_run(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2, "adapter/los")
    with pytest.raises(
        ValueError,
        match=r"keep_best='adapter/los' is not a metric of this run; expected one of adapter/loss",
    ):
        checkpoints.save(2, make_snapshot(2), {"adapter/loss": 1.0})
    checkpoints.close()
    assert steps_of(tmp_path) == []


def test_restoring_onto_another_mesh(tmp_path, capfd):
    places = {}
    for shape in ((2, 2), (1, 4), (1, 1), (8, 1)):
        mesh = sharding.make_mesh(*shape)
        with jax.set_mesh(mesh):
            step, snapshot, _ = restore(tmp_path)
            if snapshot is None:
                step, snapshot = 0, make_snapshot(0)
            assert_same(snapshot, dataclasses.replace(make_snapshot(0), data=snapshot.data))
            state = snapshot.states["net"]
            split = PartitionSpec(None, "fsdp" if mesh.shape["fsdp"] > 1 else None, None)
            adam = state.opt_state[1].inner_states[""].inner_state[0]
            kernels = [
                state.params.kernel,
                state.ema.kernel,
                adam.mu["kernel"],
                adam.nu["kernel"],
            ]
            for kernel in map(jnp.asarray, kernels):
                assert kernel.sharding.mesh == mesh
                assert kernel.sharding.is_equivalent_to(
                    jax.sharding.NamedSharding(mesh, split), kernel.ndim
                )
            for leaf in jax.tree.leaves((state, jax.random.key_data(snapshot.key))):
                assert len(leaf.sharding.device_set) == mesh.size
            places[shape] = kernels[0][...].addressable_shards[0].data.shape
            checkpoints = Checkpoints(tmp_path, 9)
            checkpoints.save(step + 1, snapshot, {})
            checkpoints.close()
    assert places == {(2, 2): (3, 4, 4), (1, 4): (3, 2, 4), (1, 1): (3, 8, 4), (8, 1): (3, 8, 4)}
    assert capfd.readouterr().err == ""


def run_apart(folder, *lines):
    """Runs code in a process of its own, after step 2 has been saved in the folder."""
    script = f"""
import os, resource, signal
from pathlib import Path
import jax, jax.numpy as jnp
from flashmotion_jax.training.checkpoints import Checkpoints, Snapshot

def state(size):
    return Snapshot({{"x": jax.random.normal(jax.random.key(0), size)}}, jax.random.key(0), {{}})

folder = Path({str(folder)!r})
checkpoints = Checkpoints(folder, 2)
checkpoints.save(2, state(1), {{}})
checkpoints.wait()
"""
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", "\n".join([script, *lines])]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def assert_only_step_2(folder):
    checkpoints = Checkpoints(folder, 2)
    messages = []
    layout = {"x": jax.ShapeDtypeStruct((1,), jnp.float32)}
    step, _ = checkpoints.restore(layout, messages.append)
    checkpoints.close()
    assert step == 2
    assert messages == ["checkpoint 4 is incomplete: removed"]
    assert sorted(path.name for path in folder.iterdir()) == ["2", "2.json"]


def test_a_kill_while_writing_leaves_the_previous_checkpoint(tmp_path):
    """The process dies as soon as orbax starts to write 256 MB."""
    killed = run_apart(
        tmp_path,
        "checkpoints.save(4, state(2**26), {})",
        "while not any(folder.glob('4*')): pass",
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(tmp_path.glob("4*")) == [tmp_path / "4.orbax-checkpoint-tmp"]
    assert_only_step_2(tmp_path)


def test_a_failed_write_is_not_reported_as_saved(tmp_path):
    """The size of files is limited, which fails as a full disk does."""
    failed = run_apart(
        tmp_path,
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))",
        "checkpoints.save(4, state(2**16), {})",
        "try:",
        "    while not checkpoints.commit(): pass",
        "except OSError as error:",
        "    print(error)",
        "print(checkpoints.commit())",
        "checkpoints.close()",
    )
    assert failed.returncode == 0, failed.stderr
    message, committed = failed.stdout.splitlines()
    assert message.startswith(f"checkpoint 4 could not be written to {tmp_path}: ValueError: ")
    assert message.endswith("; earlier checkpoints are intact")
    assert committed == "[]"
    assert_only_step_2(tmp_path)


def test_non_finite_arrays_are_not_saved(tmp_path):
    snapshot = make_snapshot(2)
    kernel = snapshot.states["net"].params.kernel
    kernel.set_value(kernel[...] + jnp.where(jnp.arange(4) == 2, jnp.inf, 0.0)[None, None])
    checkpoints = Checkpoints(tmp_path, 2)
    fault = r"after step 2, 1 arrays are not finite, for example states\.net\.params\.kernel"
    with pytest.raises(FloatingPointError, match=fault):
        checkpoints.save(2, snapshot, {})
    checkpoints.close()
    assert steps_of(tmp_path) == []


def test_other_shapes_are_an_error_not_damage(tmp_path):
    save_all(tmp_path, 2)
    net = with_shardings(nnx.eval_shape(lambda: Net(0, width=4)))
    states = {"net": jax.eval_shape(lambda net: create_train_state(net, OPTIMIZER), net)}
    checkpoints = Checkpoints(tmp_path, 2)
    with pytest.raises(
        ValueError, match=r"2 holds other arrays than this run \(.* \[3, 8, 4\] on disk"
    ):
        checkpoints.restore(states, print)
    checkpoints.close()
    assert steps_of(tmp_path) == [2]


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    checkpoints = Checkpoints(tmp_path, 2)
    with pytest.raises(OSError, match="needed, 100 free"):
        checkpoints.save(2, make_snapshot(2), {})
    checkpoints.close()
    assert steps_of(tmp_path) == []
