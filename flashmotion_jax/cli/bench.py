"""`flashmotion bench`: measure how fast this machine samples and trains full-size models."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from typing import Any, get_args

from flashmotion_jax.cli import options
from flashmotion_jax.config import ADAPTERS, Decoder
from flashmotion_jax.runtime.errors import UserError


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser(
        "bench",
        help="measure the speed of full-size models with random weights on this machine",
        description="Time every program of sampling, and the updates of training runs, with random "
        "weights of the published sizes (on a CPU: with fewer layers, frames and pixels).",
    )
    add = parser.add_argument
    add(
        "--adapter",
        action="append",
        choices=("none", *ADAPTERS),
        help="kind of adapter to sample with; repeatable (default: all; with --train, do not "
        "sample)",
    )
    add(
        "--decoder",
        action="append",
        choices=get_args(Decoder),
        help="the VAE or the tiny VAE decodes; repeatable (default: full)",
    )
    add(
        "--train",
        action="append",
        default=[],
        type=options.path_text,
        metavar="NAME|F.py",
        help="also time the updates of this training configuration; repeatable",
    )
    options.add_weights(parser, "for sampling, bfloat16; float32 on a CPU")
    options.add_attention(parser)
    options.add_overrides(parser, "batch_size=1")
    add(
        "--layers",
        type=int,
        metavar="N",
        help="number of layers of the DiT and the text encoder (default: all; on a CPU 2)",
    )
    options.add_size(
        parser,
        "in pixels (default: 704 x 1280, height x width; on a CPU 64 x 64)",
        "number of frames, 4 n + 1 (default: 121; on a CPU 5)",
    )
    add(
        "--repeat",
        type=int,
        default=3,
        metavar="N",
        help="number of runs of each program (default: 3)",
    )
    add(
        "--peer",
        choices=("diffusers",),
        help="also time the same models in PyTorch on this device",
    )
    add("--json", metavar="F.json", help="also write the measurements to this file")
    options.set_outputs(parser, files=("json",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table, and writes the measurements.

    Raises:
      UserError: An argument is wrong.
      ImportError: The peer is not installed.
    """
    if args.peer:  # leave memory of the GPU to PyTorch
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from flashmotion_jax.models.attention import attending_with
    from flashmotion_jax.perf.bench import run_bench
    from flashmotion_jax.perf.bench_report import to_json, to_lines
    from flashmotion_jax.runtime.atomic import replacing

    if args.layers is not None and args.layers < 1:
        raise UserError(f"--layers {args.layers}; expected 1 or more")
    if args.repeat < 1:
        raise UserError(f"--repeat {args.repeat}; expected 1 or more")
    adapters = args.adapter or ([] if args.train else ["none", *ADAPTERS])
    with attending_with(args.attention):
        bench = run_bench(
            adapters=adapters,
            decoders=args.decoder or ["full"],
            train_configs=args.train,
            overrides=args.set,
            num_layers=args.layers,
            height=args.height,
            width=args.width,
            num_frames=args.num_frames,
            repeat=args.repeat,
            with_peer=bool(args.peer),
            weights=args.weights,
            status=options.print_status,
        )
    for line in to_lines(bench):
        print(line)
    if args.json:
        values = to_json(bench, shlex.join(["flashmotion", "bench", *_words(args)]))
        with replacing(args.json) as scratch:
            scratch.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    written = f"; wrote {args.json}" if args.json else ""
    print(f"measured {len(bench.measured)} programs on {bench.device}{written}")
    return 0


def _words(args: argparse.Namespace) -> list[str]:
    """The arguments that decide what is measured, to record them."""
    words = []
    for name in ("adapter", "decoder", "train", "set"):
        for value in getattr(args, name) or []:
            words += [f"--{name}", value]
    names = ("layers", "height", "width", "num_frames", "repeat", "peer", "weights", "attention")
    for name in names:
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return words
