"""One process writes to a folder at a time, and a killed one blocks nobody."""

from __future__ import annotations

import os
import signal

import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.lock import sole_writer
from helpers.lock_holder import holding


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("run", {}),
        ("run-v1.5", {}),  # not the name of a file
        ("cache/00007.array_record", {"beside": True}),
        ("model-v1.5", {"beside": True}),
        ("results", {"part": (2, 3)}),
    ],
)
def test_the_second_writer_is_told_who_the_first_is(tmp_path, name, options):
    path = tmp_path / name
    with holding(path, **options) as first:
        message = f"is being written by process {first.pid} on"
        with pytest.raises(UserError, match=message), sole_writer(path, **options):
            pytest.fail("two writers")
        first.send_signal(signal.SIGKILL)
        first.wait()
        with sole_writer(path, **options):
            pass
    assert not list(tmp_path.rglob(".*"))


def test_parts_of_a_folder_have_a_writer_each_and_the_whole_has_none_meanwhile(tmp_path):
    with holding(tmp_path, part=(1, 3)):
        for _ in range(2):  # the lock of the others stays when one ends
            with sole_writer(tmp_path, part=(2, 3)):
                pass
            with pytest.raises(UserError, match="is being written"), sole_writer(tmp_path):
                pytest.fail("the whole while a part is written")
    with (
        sole_writer(tmp_path),
        pytest.raises(UserError, match=f"process {os.getpid()} on"),
        sole_writer(tmp_path, part=(2, 3)),
    ):
        pytest.fail("a part while the whole is written")


def test_the_lock_is_released_when_the_block_ends_or_raises(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path):
        raise ZeroDivisionError
    with sole_writer(tmp_path):
        pass


def test_two_files_of_a_folder_have_two_writers(tmp_path):
    with (
        sole_writer(tmp_path / "0.shard", beside=True),
        sole_writer(tmp_path / "1.shard", beside=True),
    ):
        pass
