"""`flashmotion train`: trains a stage."""

from __future__ import annotations

import argparse
from typing import Any

from flashmotion_jax.cli import options


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser("train", help="train a stage, an autoencoder or a generator")
    options.add_config(parser)
    add = parser.add_argument
    add(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto resumes a run in the workdir; never fails if there is one (default: auto)",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print parameter counts, memory and FLOPs of the run, and exit",
    )
    add(
        "--profile",
        metavar="DIR",
        help="after compilation, write a profile of a few steps to DIR; view it with tensorboard "
        "--logdir DIR",
    )
    add(
        "--distributed",
        metavar="auto|PROCESS/COUNT@HOST:PORT",
        help="train as one of several processes: auto under Slurm and on TPU pods; elsewhere the "
        "index of this process (from 0), their number, and the address of process 0 (default: one "
        "process)",
    )
    options.set_outputs(parser, folders=("profile",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, alone or as one of several processes.

    Returns:
      The exit status: 143 if a signal stopped the run after it was saved.

    Raises:
      UserError: the configuration, a checkpoint or the cache is wrong.
    """
    if not args.distributed:
        return _train(args)
    from flashmotion_jax.runtime.distributed import run_together

    traceback = "traceback" in args
    return run_together("flashmotion", args.distributed, lambda: _train(args), traceback=traceback)


def _train(args: argparse.Namespace) -> int:
    from flashmotion_jax.config import TrainConfig, load_config, with_overrides

    config = with_overrides(load_config(args.config, TrainConfig), args.set)
    if args.dry_run:
        from flashmotion_jax.training.dry_run import describe

        for line in describe(config):
            print(line, flush=True)
        return 0
    from flashmotion_jax.runtime.atomic import check_folder
    from flashmotion_jax.training.trainer import train

    check_folder(config.workdir)
    result = train(config, resume=args.resume, profile=args.profile)
    if result.model is None:
        print(f"stopped after step {result.num_steps}; run the same command to resume")
        return 143
    print(f"completed {result.num_steps} steps in {config.workdir}; wrote {result.model}")
    return 0
