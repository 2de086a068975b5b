"""Starts several processes that train as one on this machine, for tests that kill some of them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from helpers import compiling

ROOT = Path(__file__).parents[2]
#: Within which all processes must end when one of them does.
LIMIT_SECONDS = 60
#: Of a whole run, on a machine that others use too.
RUN_SECONDS = 500


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Run:
    """Processes that run `python -c CODE PROCESS/COUNT@HOST:PORT ...` each with one CPU device."""

    def __init__(self, folder, code, count, *arguments):
        folder.mkdir()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
            "XLA_FLAGS": compiling.FLAGS,
            "JAX_PLATFORMS": "cpu",
        }
        address = f"127.0.0.1:{free_port()}"
        self._files = [folder / f"{process}.txt" for process in range(count)]
        self.processes = []
        for process, file in enumerate(self._files):
            place = f"{process}/{count}@{address}"
            with file.open("wb") as output:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", code, place, *map(str, arguments)],
                        env=environment,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def text(self, process):
        """What a process has printed until now."""
        return self._files[process].read_text(errors="replace")

    def wait_for(self, pattern, process=0):
        """Until a process has printed a pattern."""
        for _ in range(10 * RUN_SECONDS):
            if re.search(pattern, self.text(process)):
                return
            if self.processes[process].poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"no {pattern!r} in\n{self.text(process)}")

    def signal(self, process, number):
        self.processes[process].send_signal(number)

    def end(self, seconds):
        """Exit statuses of all, which must have ended within so many seconds."""
        until = time.monotonic() + seconds
        try:
            return [process.wait(max(0.1, until - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            texts = "\n".join(self.text(process) for process in range(len(self.processes)))
            raise AssertionError(f"not all have ended after {seconds} s:\n{texts}") from None
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
