"""What all command lines share."""

from __future__ import annotations

import signal
import time

from flashmotion_jax.runtime.errors import exit_status


class Unlucky:
    """Ctrl-C is pressed while it is being destroyed."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_destructor_ends_the_command(capsys):
    def run() -> int:
        unlucky = Unlucky()
        del unlucky
        time.sleep(30)
        return 0

    start = time.monotonic()
    assert exit_status("program", run) == 130
    assert time.monotonic() - start < 20
    assert "interrupted" in capsys.readouterr().err
