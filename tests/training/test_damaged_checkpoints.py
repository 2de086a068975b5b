"""Checkpoints damaged in every way: set aside, and the one before them is used."""

from __future__ import annotations

import errno
import os

import jax
import pytest

from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.hashing import file_sha256
from flashmotion_jax.training.checkpoints import Checkpoints
from helpers.small_checkpoints import abstract, assert_same, make_snapshot, restore, save_all


@pytest.fixture(autouse=True)
def mesh():
    with jax.set_mesh(sharding.make_mesh()):
        yield


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
