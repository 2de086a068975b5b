"""Ctrl-C at places where Python or a library loses it."""

import signal
import subprocess
import sys
import time

from flashmotion_jax.runtime.errors import UserError, exit_status


class InterruptedDestructor:
    """Ctrl-C is pressed while it is being destroyed."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_destructor_ends_the_command(capsys):
    def run() -> int:
        destroyed = InterruptedDestructor()
        del destroyed
        time.sleep(30)
        return 0

    start = time.monotonic()
    assert exit_status("program", run) == 130
    assert time.monotonic() - start < 20
    assert "interrupted" in capsys.readouterr().err


def test_ctrl_c_that_a_library_turns_into_another_error_is_still_one(capsys):
    def run() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise UserError("params is damaged; copy it again") from error
        return 0

    assert exit_status("program", run) == 130
    printed = capsys.readouterr().err
    assert "interrupted" in printed
    assert "damaged" not in printed


def test_an_interrupt_is_forgotten_when_the_command_is_over(capsys):
    def interrupted() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    def bad() -> int:
        raise UserError("steps=0; expected 1 or more")

    assert exit_status("program", interrupted) == 130
    assert exit_status("program", bad) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


THREAD = """
import sys, threading, time
from flashmotion_jax.runtime.errors import exit_status
from flashmotion_jax.runtime.interrupts import exit_process

def run():
    threading.Thread(target=time.sleep, args=[600]).start()
    print("started", flush=True)
    time.sleep(600)

exit_process(exit_status("program", run))
"""


def test_an_interrupted_process_does_not_wait_for_its_threads():
    arguments = [sys.executable, "-c", THREAD]
    with subprocess.Popen(arguments, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "interrupted" in process.stderr.read()
