"""Another process that holds the lock of a folder."""

from __future__ import annotations

import contextlib
import subprocess
import sys

HOLD = """
import sys, time
from flashmotion_jax.runtime.lock import sole_writer
with sole_writer(sys.argv[1], **eval(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holding(path, **options):
    """A process that holds a lock while the block runs, as `sole_writer(path, **options)`."""
    command = [sys.executable, "-c", HOLD, path, repr(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()
