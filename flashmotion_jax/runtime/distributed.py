"""Several processes as one run: they join, and when one of them ends early, all do.

Left alone, jax's processes wait for a lost one in a collective for up to 100 s and then abort, for
one that raised for 5 minutes, and for one that was asked to stop for ever. Here each process tells
the others that it is there, and whoever misses one says so and ends; what was saved is gone on from
by the same command. Only of process 0, through which all are joined, jax itself says that it is
gone, and ends the others at once.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import traceback as tracebacks
from collections.abc import Callable
from typing import Any

import jax

from flashmotion_jax.runtime.errors import UserError, exit_status

#: How often a process tells that it is there, and after how long a silence it counts as lost.
BEAT_SECONDS = 2.0
SILENT_SECONDS = 15.0
#: For jax's own watch, which ends what ours cannot; and for processes to find each other. jax beats
#: twice in that time, so it may miss a process after half of it already: ours must be quicker.
HEARTBEAT_SECONDS = 50
JOIN_SECONDS = 300
#: For all to come to the end: one of them writes the result.
END_SECONDS = 3600
#: Exit statuses of a run that came to its end, or that was asked to stop and has saved.
GOOD = (0, 143)

#: Errors of collectives, whose cause is another process.
_OF_OTHERS = re.compile("gloo|nccl|peer|collective|unavailable|deadline|socket", re.IGNORECASE)

_ALIVE, _FAILED, _END = "flashmotion/alive", "flashmotion/failed", "flashmotion/end"


def run_together(
    program: str, where: str, run: Callable[[], int], *, traceback: bool = False
) -> int:
    """Runs a command as one of several processes.

    Args:
      program: name to begin messages with.
      where: "auto" on a cluster that jax knows (Slurm, TPU pods, Open MPI), or which process this
        is, of how many, and where process 0 is: "1/4@10.0.0.1:1234".
      run: the command.
      traceback: see `exit_status`.

    Returns:
      The exit status, as of `errors.exit_status`. If a process fails, this one included, it does
      not return: the process ends, with status 1 or its own.

    Raises:
      UserError: `where` is neither, or there is no such cluster.
      OSError: the processes did not find each other.
    """
    _join(where)
    if jax.process_count() == 1:
        return exit_status(program, run, traceback=traceback)
    watch = _Watch(program, _client(), jax.process_index(), jax.process_count())
    watch.start()

    def guarded() -> int:
        try:
            return run()
        except Exception as error:
            if _OF_OTHERS.search(str(error)):
                # Most likely one of them is gone: in a moment the watch knows, and ends this one.
                time.sleep(SILENT_SECONDS + 6 * BEAT_SECONDS)
            raise

    try:
        status = exit_status(program, guarded, traceback=traceback)
        reason = f"ended with status {status}; its own message says why"
    except BaseException as error:
        tracebacks.print_exc()
        status, reason = 1, f"failed: {type(error).__name__}: {error}"
    if status not in GOOD:
        watch.tell(reason)
        _end(status)
    _client().wait_at_barrier(_END, END_SECONDS * 1000)
    watch.stop()
    jax.distributed.shutdown()
    return status


def _join(where: str) -> None:
    options: dict[str, Any] = {
        "initialization_timeout": JOIN_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": HEARTBEAT_SECONDS,
    }
    if where != "auto":
        found = re.fullmatch(r"(\d+)/(\d+)@(.+:\d+)", where)
        if not found or int(found.group(1)) >= int(found.group(2)):
            raise UserError(
                f"--distributed {where!r}; expected 'auto', or PROCESS/COUNT@HOST:PORT with "
                "processes counted from 0, for instance 1/4@10.0.0.1:1234"
            )
        options |= {
            "process_id": int(found.group(1)),
            "num_processes": int(found.group(2)),
            "coordinator_address": found.group(3),
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(**options)
    except ValueError as error:
        raise UserError(
            f"--distributed {where}: jax finds no cluster here ({error}); give the place of this "
            "process as PROCESS/COUNT@HOST:PORT"
        ) from error
    except RuntimeError as error:
        raise OSError(
            f"--distributed {where}: the processes did not find each other within {JOIN_SECONDS} s "
            f"({str(error).splitlines()[0][:200]}); is process 0 up, and its port open?"
        ) from error


def _client() -> Any:
    """What processes leave notes with; jax has no public name for it."""
    from jax._src import distributed

    return distributed.global_state.client


def _end(status: int) -> None:
    """Ends the process at once: an orderly end would wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _Watch(threading.Thread):
    """Tells the others that this process is there, and ends it when one of them is not.

    Process 0 compares what all have told; the others look for its verdict.
    """

    def __init__(self, program: str, client: Any, index: int, count: int):
        super().__init__(name="watch of processes", daemon=True)
        self._program, self._client, self._index, self._count = program, client, index, count
        self._done = threading.Event()
        self._beats: dict[str, tuple[str, float]] = {}  # process to its last, and when it was new

    def stop(self) -> None:
        """Ends the watch: processes may go now."""
        self._done.set()
        self.join()

    def tell(self, reason: str) -> None:
        """Leaves word that this process is about to end."""
        self._done.set()
        self._note(self._index, reason)

    def run(self) -> None:
        """Until `stop`."""
        beat = 0
        while not self._done.wait(BEAT_SECONDS):
            beat += 1
            try:
                self._client.key_value_set(f"{_ALIVE}/{self._index}", str(beat), True)
                reason = self._look()
            except Exception as error:  # the client has kinds of its own
                lines = str(error).splitlines() or [type(error).__name__]
                reason = f"process 0 cannot be reached ({lines[0][:100]})"
            if reason and not self._done.is_set():
                print(
                    f"{self._program}: {reason}; process {self._index} of {self._count} ends too. "
                    "What was saved is whole: the same command goes on from there",
                    file=sys.stderr,
                )
                _end(1)

    def _look(self) -> str | None:
        """What ends this process, if anything does."""
        failed = self._client.key_value_dir_get(_FAILED)
        if failed:
            key, reason = sorted(failed)[0]
            if self._index == 0:
                time.sleep(2 * BEAT_SECONDS)  # the notes go with this process
            return f"process {key.rsplit('/', 1)[1]} {reason}"
        if self._index == 0:
            now = time.monotonic()
            beats = dict(self._client.key_value_dir_get(_ALIVE))
            for process in range(1, self._count):
                told = beats.get(f"{_ALIVE}/{process}", "")
                last, since = self._beats.get(str(process), ("", now))
                if told != last:
                    last, since = told, now
                self._beats[str(process)] = last, since
                if now - since > SILENT_SECONDS:
                    self._note(process, f"has not been heard of for {SILENT_SECONDS:.0f} s")
        return None

    def _note(self, process: int, reason: str) -> None:
        try:
            self._client.key_value_set(f"{_FAILED}/{process}", reason, True)
        except Exception:  # then process 0 is gone, which ends the others too
            return
        if self._index == 0 and process == 0:
            time.sleep(2 * BEAT_SECONDS)  # the notes go with this process
