"""The exit status of every command line, and what it prints."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from flashmotion_jax.cli.options import add_traceback
from flashmotion_jax.runtime.errors import UserError, exit_status


def raising(error):
    def run() -> int:
        raise error

    return run


def broadcast() -> int:
    np.zeros(3) + np.zeros(4)  # a ValueError of numpy, and no message for users
    return 0


@pytest.mark.parametrize("status", [0, 1, 143])
def test_the_status_of_the_command_is_returned(status, capsys):
    assert exit_status("program", lambda: status) == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("steps=0; expected 1 or more"), 2),
        (OSError(28, "No space left on device"), 1),
        (PermissionError(13, "Permission denied", "/etc/x"), 1),
        (ConnectionError("the hub cannot be reached"), 1),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1),
        (ImportError("the editor needs uvicorn: pip install ..."), 1),
        (FloatingPointError("the loss is nan"), 1),
        (MemoryError("Unable to allocate 1.12 TiB"), 1),
    ],
)
def test_input_and_the_machine_are_one_line(error, status, capsys):
    assert exit_status("program", raising(error)) == status
    assert capsys.readouterr().err == f"program: {error}\n"
    assert exit_status("program", raising(error), traceback=True) == status
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].endswith(str(error))


@pytest.mark.parametrize(
    "run",
    [
        broadcast,
        raising(ValueError("made without a word for users")),
        raising(KeyError("key")),
        raising(AssertionError()),
        raising(ImportError("cannot import name 'x'", name="flashmotion_jax.models.x")),
    ],
)
def test_a_bug_is_a_traceback_and_status_1(run, capsys):
    assert exit_status("program", run) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):")
    assert "test_errors.py" in error


def test_the_option_is_present_only_where_it_was_given():
    parser = argparse.ArgumentParser()
    add_traceback(parser)
    assert "traceback" not in parser.parse_args([])
    assert "traceback" in parser.parse_args(["--traceback"])
