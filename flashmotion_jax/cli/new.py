"""`flashmotion new`: writes an untrained model."""

from __future__ import annotations

import argparse
from typing import Any

from flashmotion_jax.cli import options


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser("new", help="create a model with newly initialized weights")
    add = parser.add_argument
    add("out", metavar="OUT", help="checkpoint folder; must not exist")
    options.add_config(parser)
    add("--seed", type=int, default=0, metavar="N", help="random seed of the weights (default: 0)")
    options.set_outputs(parser, folders=("out",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes a checkpoint with random weights.

    Raises:
      UserError: the configuration is wrong, or the folder exists.
    """
    from flashmotion_jax.checkpoints.init import NewModelConfig, init_checkpoint
    from flashmotion_jax.config import load_config, with_overrides

    config = with_overrides(load_config(args.config, NewModelConfig), args.set)
    num_parameters = init_checkpoint(args.out, config, args.seed)
    print(f"wrote {args.out}: {num_parameters / 1e6:.2f} M parameters, untrained")
    return 0
