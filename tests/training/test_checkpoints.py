"""Checkpoints of a small model: kept, damaged in every way, and restored onto other meshes."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from flashmotion_jax.config import OptimizerConfig
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.hashing import file_sha256
from flashmotion_jax.training.abstract import with_shardings
from flashmotion_jax.training.checkpoints import Checkpoints, Snapshot
from flashmotion_jax.training.train_state import apply_gradients, create_train_state

OPTIMIZER = OptimizerConfig(learning_rate=0.1, ema_decay=0.9)


class Net(nnx.Module):
    """A stack of three layers, sharded over "fsdp", and a bias, which is not."""

    def __init__(self, seed, width=8):
        rng = np.random.default_rng(seed)
        kernel = rng.standard_normal((3, width, 4), np.float32)
        self.kernel = nnx.Param(jnp.asarray(kernel), axes=("embed", None))
        self.bias = nnx.Param(jnp.asarray(rng.standard_normal(4, np.float32)))


@pytest.fixture(autouse=True)
def mesh():
    with jax.set_mesh(sharding.make_mesh()):
        yield


def make_snapshot(step, width=8):
    """A snapshot whose values depend on `step`."""
    mesh = jax.sharding.get_mesh()
    state = jax.jit(lambda net: create_train_state(net, OPTIMIZER))(
        sharding.place(Net(step, width), mesh)
    )
    return Snapshot({"net": state}, jax.random.key(step), {"cache": "abc", "step": step})


def abstract():
    net = with_shardings(nnx.eval_shape(lambda: Net(0)))
    return {"net": jax.eval_shape(lambda net: create_train_state(net, OPTIMIZER), net)}


def values(snapshot):
    leaves = jax.tree_util.tree_leaves_with_path(
        (snapshot.states, jax.random.key_data(snapshot.key))
    )
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same(actual, expected):
    actual_values, expected_values = values(actual), values(expected)
    assert actual_values.keys() == expected_values.keys()
    for path, value in expected_values.items():
        assert actual_values[path].dtype == value.dtype
        np.testing.assert_array_equal(actual_values[path], value, err_msg=path)
    assert actual.data == expected.data


def save_all(folder, *steps, **kwargs):
    """Writes the checkpoints of `steps`, with `metrics` by step."""
    metrics = kwargs.pop("metrics", {})
    checkpoints = Checkpoints(folder, kwargs.pop("keep", 9), **kwargs)
    for step in steps:
        checkpoints.save(step, make_snapshot(step), metrics.get(step, {}))
    checkpoints.close()


def restore(folder, **kwargs):
    """Step, snapshot, messages."""
    checkpoints = Checkpoints(folder, kwargs.pop("keep", 9), **kwargs)
    messages = []
    restored = checkpoints.restore(abstract(), messages.append)
    checkpoints.close()
    return *(restored or (None, None)), messages


def steps_of(folder):
    """Steps on disk; each has its manifest, and there are no other manifests."""
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    assert sorted(int(path.stem) for path in folder.glob("*.json")) == steps
    return steps


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


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=_size)


def _size(path):
    return path.stat().st_size


def truncate(folder):
    os.truncate(largest(folder), 10)


def remove(folder):
    largest(folder).unlink()


def flip(name):
    def damage(folder):
        file = folder / name
        content = bytearray(file.read_bytes())
        for place in range(0, len(content), 5):
            content[place] ^= 255
        file.write_bytes(content)

    return damage


def remove_manifest(folder):
    folder.with_suffix(".json").unlink()


def truncate_manifest(folder):
    folder.with_suffix(".json").write_text('{"num_by')


CHANGED = "damaged (files are missing, truncated or changed)"
DAMAGES = {
    "truncated": (truncate, CHANGED),
    "file missing": (remove, CHANGED),
    "structure": (flip("state/_METADATA"), CHANGED),
    "orbax manifest": (flip("state/manifest.ocdbt"), CHANGED),
    "data state": (flip("data/metadata"), CHANGED),
    "manifest missing": (remove_manifest, "incomplete"),
    "manifest truncated": (truncate_manifest, CHANGED),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped(tmp_path, capfd, damage):
    spoil, fault = DAMAGES[damage]
    save_all(tmp_path, 2, 4)
    for _ in range(2):  # the same step may be hit again
        spoil(tmp_path / "4")
        checkpoints = Checkpoints(tmp_path, 9)
        messages = []
        step, snapshot = checkpoints.restore(abstract(), messages.append)
        assert step == 2
        assert_same(snapshot, make_snapshot(2))
        target = tmp_path / "damaged" / "4"
        assert target.is_dir()
        assert messages == [f"checkpoint 4 is {fault}: moved to {target}; trying the previous one"]
        checkpoints.save(4, make_snapshot(4), {})
        checkpoints.close()
        step, snapshot, messages = restore(tmp_path)
        assert (step, messages) == (4, [])
        assert_same(snapshot, make_snapshot(4))
    assert "Traceback" not in capfd.readouterr().err


def test_one_flipped_bit_of_a_large_file_is_found(tmp_path):
    save_all(tmp_path, 2, 4)
    file = largest(tmp_path / "4")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    step, snapshot, messages = restore(tmp_path)
    assert step == 2
    assert_same(snapshot, make_snapshot(2))
    assert len(messages) == 1 and CHANGED in messages[0]


@pytest.mark.parametrize("content", [b'{"lo\xff', b"", b"[1]", b'{"loss": 0.1}'])
@pytest.mark.parametrize("step", [4, 6])
def test_damaged_metrics_are_found_before_orbax_reads_them(tmp_path, step, content):
    metrics = {2: {"loss": 3.0}, 4: {"loss": 1.0}, 6: {"loss": 2.0}}
    save_all(tmp_path, *metrics, keep_best="loss", metrics=metrics)
    (tmp_path / str(step) / "metrics" / "metrics").write_bytes(content)
    restored, _, messages = restore(tmp_path, keep_best="loss")
    assert restored == (4 if step == 6 else 6)
    target = tmp_path / "damaged" / str(step)
    assert messages == [f"checkpoint {step} is {CHANGED}: moved to {target}"]
    assert target.is_dir()


def test_a_file_that_the_disk_cannot_read_is_damage(tmp_path, monkeypatch):
    save_all(tmp_path, 2, 4)

    def read(file):
        if file.parents[1] == tmp_path / "4":
            raise OSError(errno.EIO, "Input/output error", str(file))
        return file_sha256(file)

    monkeypatch.setattr("flashmotion_jax.runtime.checksums.file_sha256", read)
    step, _, messages = restore(tmp_path)
    assert step == 2
    assert len(messages) == 1 and "checkpoint 4 is damaged (the disk cannot read it)" in messages[0]


def test_damage_that_only_orbax_finds_is_skipped_too(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "flashmotion_jax.training.checkpoints.measure_files", lambda folder, names=None: {}
    )
    save_all(tmp_path, 2, 4)
    flip("state/_METADATA")(tmp_path / "4")
    step, snapshot, messages = restore(tmp_path)
    assert step == 2
    assert_same(snapshot, make_snapshot(2))
    assert len(messages) == 1 and messages[0].startswith("checkpoint 4 is damaged (")
    assert CHANGED not in messages[0]


def test_without_an_intact_checkpoint_the_run_starts_over(tmp_path):
    save_all(tmp_path, 2, 4, 6)
    for step in (2, 4, 6):
        truncate(tmp_path / str(step))
    step, snapshot, messages = restore(tmp_path)
    assert (step, snapshot) == (None, None)
    assert [message.split()[1] for message in messages] == ["6", "4", "2"]
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["2", "4", "6"]
    save_all(tmp_path, 2)
    assert restore(tmp_path)[0] == 2


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
