"""The `flashmotion` command: one file per command, and shared options in `options`.

Commands import jax when they run, so that `--help` answers at once. Exit status: 0 done, 1 failed,
2 bad arguments or input, 130 interrupted, 143 stopped by a signal after saving.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import flashmotion_jax
from flashmotion_jax.cli import (
    bench,
    cache,
    convert,
    download,
    edit,
    evaluate,
    new,
    plan,
    sample,
    train,
)
from flashmotion_jax.cli.options import (
    Parser,
    check_outputs,
    keep_compiled_programs,
    plain_warnings,
)
from flashmotion_jax.runtime.errors import exit_status
from flashmotion_jax.runtime.interrupts import exit_process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments after the program's name; None takes those of the process.

    Returns:
      The exit status.
    """
    args = build_parser().parse_args(argv)
    keep_compiled_programs()

    def run() -> int:
        check_outputs(args)
        return args.run(args)

    with plain_warnings("flashmotion"):
        return exit_status("flashmotion", run, traceback="traceback" in args)


def command() -> NoReturn:
    """Runs the command line as a process of its own, and ends the process."""
    exit_process(main())


def build_parser() -> Parser:
    """Builds the parser of all commands."""
    parser = Parser(
        prog="flashmotion", description="Trajectory-controlled video generation in four steps."
    )
    version = f"flashmotion {flashmotion_jax.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (sample, download, convert, cache, train, new, evaluate, plan, bench, edit):
        command.add_parser(commands)
    return parser
