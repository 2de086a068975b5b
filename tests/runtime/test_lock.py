"""One process writes to a folder at a time, and a killed one blocks nobody."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.lock import sole_writer

HOLD = """
import sys, time
from flashmotion_jax.runtime.lock import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["run", "cache/00007.array_record"])
def test_the_second_writer_is_told_who_the_first_is(tmp_path, name):
    path = tmp_path / name
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        message = f"is being written by process {first.pid} on"
        with pytest.raises(UserError, match=message), sole_writer(path):
            pytest.fail("two writers")
        first.send_signal(signal.SIGKILL)
    with sole_writer(path):
        pass
    assert not list(tmp_path.rglob(".*"))


def test_the_lock_is_released_when_the_block_ends_or_raises(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path):
        raise ZeroDivisionError
    with sole_writer(tmp_path):
        pass


def test_two_files_of_a_folder_have_two_writers(tmp_path):
    with sole_writer(tmp_path / "0.shard"), sole_writer(tmp_path / "1.shard"):
        pass
