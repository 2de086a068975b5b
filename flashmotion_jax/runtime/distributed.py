"""Runs several processes as one: they join, and when one of them ends early, all do.

On their own, JAX's processes wait for a lost process in a collective for up to 100 s and then
abort, for one that raised for 5 minutes, and for one that was asked to stop forever. Here each
process sends heartbeats through JAX's coordination service, and a process that learns of a lost one
says so and exits; the same command then resumes from the last checkpoint. Process 0 hosts the
service: if it is killed, JAX itself reports that and ends the others at once.
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
from flashmotion_jax.runtime.private import private_module

#: Seconds between heartbeats, and without one until a process counts as lost.
BEAT_SECONDS = 2.0
SILENT_SECONDS = 15.0
#: For JAX's own heartbeats, which end what ours cannot. JAX may notice a lost process after half of
#: this time, and would abort without a message, so ours have to notice it earlier.
HEARTBEAT_SECONDS = 50
#: How long processes wait for each other at the start.
JOIN_SECONDS = 300
#: How long they wait for each other at the end, while one of them may still write the result.
END_SECONDS = 3600
#: Exit statuses of a run that is complete, or that was asked to stop and has saved a checkpoint.
SUCCESS = (0, 143)

#: Errors of collectives, which another process causes.
_FROM_OTHERS = re.compile("gloo|nccl|peer|collective|unavailable|deadline|socket", re.IGNORECASE)

#: Keys in the coordination service.
_ALIVE, _FAILED, _END = "flashmotion/alive", "flashmotion/failed", "flashmotion/end"


def run_together(
    program: str, where: str, run: Callable[[], int], *, traceback: bool = False
) -> int:
    """Runs a command as one of several processes.

    Args:
      program: Name at the start of messages.
      where: "auto" on a cluster that JAX detects (Slurm, TPU pods, Open MPI), else the index of
        this process, the number of processes and the address of process 0: "1/4@10.0.0.1:1234".
      run: The command.
      traceback: See `errors.exit_status`.

    Returns:
      The exit status, see `errors.exit_status`. If any process fails, this function does not
      return: the process exits, with its own status if it failed itself, else with 1.

    Raises:
      UserError: `where` has another form, or there is no such cluster.
      OSError: The processes did not find each other.
    """
    _join(where)
    if jax.process_count() == 1:
        return exit_status(program, run, traceback=traceback)
    heartbeat = _Heartbeat(program, _client(), jax.process_index(), jax.process_count())
    heartbeat.start()

    def guarded() -> int:
        try:
            return run()
        except Exception as error:
            if _FROM_OTHERS.search(str(error)):
                # Most likely another process is gone. Give the heartbeat time to find out and to
                # exit with a message that names it.
                time.sleep(SILENT_SECONDS + 6 * BEAT_SECONDS)
            raise

    try:
        status = exit_status(program, guarded, traceback=traceback)
        reason = f"ended with status {status}; its own message says why"
    except BaseException as error:
        tracebacks.print_exc()
        status, reason = 1, f"failed: {type(error).__name__}: {error}"
    if status not in SUCCESS:
        heartbeat.report(reason)
        _exit(status)
    _client().wait_at_barrier(_END, END_SECONDS * 1000)
    heartbeat.stop()
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
            f"--distributed {where}: JAX detects no cluster here ({error}); pass the index of this "
            "process and the address of process 0 as PROCESS/COUNT@HOST:PORT"
        ) from error
    except RuntimeError as error:
        raise OSError(
            f"--distributed {where}: the processes did not find each other within {JOIN_SECONDS} s "
            f"({str(error).splitlines()[0][:200]}); is process 0 running, and its port open?"
        ) from error


def _client() -> Any:
    """The client of JAX's coordination service: a key-value store and barriers."""
    distributed: Any = private_module(
        "jax._src.distributed",
        "global_state",
        "`--distributed` needs the client of the coordination service; "
        "`jax.experimental.multihost_utils` has its barrier, but no key-value store",
    )
    return distributed.global_state.client


def _exit(status: int) -> None:
    """End the process at once: an orderly shutdown would wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _Heartbeat(threading.Thread):
    """Tells the others that this process is alive, and ends it when another one is not.

    Process 0 checks the heartbeats of all; the others read its verdict.
    """

    def __init__(self, program: str, client: Any, index: int, count: int):
        super().__init__(name="heartbeat", daemon=True)
        self._program, self._client, self._index, self._count = program, client, index, count
        self._done = threading.Event()
        # By process: its last heartbeat, and when that was first seen.
        self._last_beats: dict[str, tuple[str, float]] = {}

    def stop(self) -> None:
        """Stops checking, so that processes may exit."""
        self._done.set()
        self.join()

    def report(self, reason: str) -> None:
        """Tells the others that this process is about to exit."""
        self._done.set()
        self._record_failure(self._index, reason)

    def run(self) -> None:
        """Send and check heartbeats until `stop`."""
        beat = 0
        while not self._done.wait(BEAT_SECONDS):
            beat += 1
            try:
                self._client.key_value_set(f"{_ALIVE}/{self._index}", str(beat), True)
                reason = self._check()
            except Exception as error:  # the client raises types of its own
                lines = str(error).splitlines() or [type(error).__name__]
                reason = f"process 0 cannot be reached ({lines[0][:100]})"
            if reason and not self._done.is_set():
                print(
                    f"{self._program}: {reason}; process {self._index} of {self._count} exits too. "
                    "Checkpoints are complete: the same command resumes from the last one",
                    file=sys.stderr,
                )
                _exit(1)

    def _check(self) -> str | None:
        """The reason for which this process has to exit, if there is one."""
        failed = self._client.key_value_dir_get(_FAILED)
        if failed:
            key, reason = sorted(failed)[0]
            if self._index == 0:
                # The key-value store ends with this process; let the others read it first.
                time.sleep(2 * BEAT_SECONDS)
            return f"process {key.rsplit('/', 1)[1]} {reason}"
        if self._index == 0:
            now = time.monotonic()
            beats = dict(self._client.key_value_dir_get(_ALIVE))
            for process in range(1, self._count):
                beat = beats.get(f"{_ALIVE}/{process}", "")
                last, since = self._last_beats.get(str(process), ("", now))
                if beat != last:
                    last, since = beat, now
                self._last_beats[str(process)] = last, since
                if now - since > SILENT_SECONDS:
                    self._record_failure(process, f"sent no heartbeat for {SILENT_SECONDS:.0f} s")
        return None

    def _record_failure(self, process: int, reason: str) -> None:
        try:
            self._client.key_value_set(f"{_FAILED}/{process}", reason, True)
        except Exception:  # process 0 is gone, which ends the others too
            return
        if self._index == 0 and process == 0:
            time.sleep(2 * BEAT_SECONDS)  # let the others read it before the store ends
