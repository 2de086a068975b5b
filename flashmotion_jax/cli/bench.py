"""`flashmotion bench`: how fast this machine samples and trains models of full size."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
from typing import TYPE_CHECKING, Any

from flashmotion_jax.cli import options
from flashmotion_jax.config import ADAPTERS
from flashmotion_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from flashmotion_jax.perf.stages import Bench


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser(
        "bench",
        help="measure this machine with full-size models of random weights",
        description="Times every program of sampling, and the turns of training runs, with random "
        "weights of the published sizes (on a CPU: with fewer layers, frames and pixels).",
    )
    add = parser.add_argument
    add(
        "--adapter",
        action="append",
        choices=("none", *ADAPTERS),
        help="of the denoising steps; repeatable (default: all; with --train, none)",
    )
    add(
        "--train",
        action="append",
        default=[],
        metavar="F.py",
        help="also the turns of a training run of configs/; repeatable",
    )
    options.add_overrides(parser, "batch_size=1")
    add("--layers", type=int, metavar="N", help="of DiT and text encoder (default: all; CPU: 2)")
    options.add_size(
        parser,
        "of a video in pixels (default: 1280 x 704, width x height; on a CPU 64 x 64)",
        "of a video, 4 n + 1 (default: 121; on a CPU 5)",
    )
    add("--repeat", type=int, default=3, metavar="N", help="runs of each program (default: 3)")
    add(
        "--peer",
        choices=("diffusers",),
        help="also time the same models in PyTorch, in turn on the same device, and print ratios",
    )
    add("--json", metavar="F.json", help="write the measurements there too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table, and writes the measurements.

    Raises:
      UserError: an argument is wrong.
      ImportError: the peer is missing.
    """
    if args.peer:  # both frameworks are to find memory on one GPU
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from flashmotion_jax.perf.stages import run_bench
    from flashmotion_jax.runtime.atomic import check_file, replacing

    if args.repeat < 1:
        raise UserError(f"--repeat {args.repeat}; expected 1 or more")
    if args.json:
        check_file(args.json)
    adapters = args.adapter or ([] if args.train else ["none", *ADAPTERS])
    bench = run_bench(
        adapters=adapters,
        trained=args.train,
        overrides=args.set,
        layers=args.layers,
        height=args.height,
        width=args.width,
        num_frames=args.num_frames,
        repeat=args.repeat,
        with_peer=bool(args.peer),
        progress=options.print_status,
    )
    for line in _table(bench):
        print(line)
    if args.json:
        values = _to_json(bench, shlex.join(["flashmotion", "bench", *_words(args)]))
        with replacing(args.json) as scratch:
            scratch.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    written = f"; wrote {args.json}" if args.json else ""
    print(f"measured {len(bench.measured)} programs on {bench.device}{written}")
    return 0


def _table(bench: Bench) -> list[str]:
    lines = [
        f"{bench.device}: {bench.matmul / 1e12:,.1f} TFLOP/s in a matmul; DiT of {bench.layers} "
        f"layers, {bench.size.num_frames} frames of {bench.size.width} x {bench.size.height}",
        f"{'program':44}{'runs':>6}{'compile s':>11}{'run s':>10}{'GB':>8}{'TFLOP/s':>10}"
        f"{'of matmul':>11}",
    ]
    for group, one in bench.measured:
        lines.append(
            f"{f'{group}: {one.program.name}':44}{one.program.runs:6.3g}"
            f"{one.compile_seconds:11.1f}{one.median:10.4f}{one.memory / 1e9:8.2f}"
            f"{one.rate / 1e12:10.2f}{one.rate / bench.matmul:11.1%}"
        )
    lines += [
        f"{group}: {one.program.name} does not fit: {one.reason}" for group, one in bench.refused
    ]
    lines += [f"{group}, in all: {seconds:.3f} s" for group, seconds in bench.totals.items()]
    for group, one in bench.whole.items():
        stages = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in one.stages.items())
        memory = f"; {one.memory / 1e9:.1f} GB held at most" if one.memory else ""
        lines.append(f"{group}, a video by the pipeline: {one.median:.3f} s ({stages}){memory}")
    if bench.compared:
        lines.append(f"{'beside diffusers':44}{'ours s':>10}{'theirs s':>10}{'theirs / ours':>15}")
    for one in bench.compared:
        note = f" ({one.note})" if one.note else ""
        lines.append(
            f"{one.name:44}{one.ours:10.4f}{one.theirs:10.4f}{one.ratio:15.2f}  {one.how}{note}"
        )
    return lines


def _to_json(bench: Bench, command: str) -> dict[str, Any]:
    import jax

    from flashmotion_jax.perf.peer import versions

    packages = versions() if bench.compared else {}
    return {
        "command": command,
        "device": bench.device,
        "versions": {"jax": jax.__version__, "python": platform.python_version(), **packages},
        "layers": bench.layers,
        "video": bench.size._asdict(),
        "matmul_flops_per_second": bench.matmul,
        "peak_flops_per_second": bench.peak,
        "programs": [
            {
                "group": group,
                "name": one.program.name,
                "runs": one.program.runs,
                "compile_seconds": one.compile_seconds,
                "seconds": one.seconds,
                "memory": one.memory,
                "model_flops": one.program.model_flops,
                "devices": one.devices,
                "mfu": one.rate / bench.peak if bench.peak else None,
            }
            for group, one in bench.measured
        ],
        "does_not_fit": [
            {"group": group, "name": one.program.name, "reason": one.reason}
            for group, one in bench.refused
        ],
        "total_seconds": bench.totals,
        "pipeline": {group: one._asdict() for group, one in bench.whole.items()},
        "compared": [one._asdict() | {"ratio": one.ratio} for one in bench.compared],
    }


def _words(args: argparse.Namespace) -> list[str]:
    """The arguments that decide what is measured."""
    words = []
    for name in ("adapter", "train", "set"):
        for value in getattr(args, name) or []:
            words += [f"--{name}", value]
    for name in ("layers", "height", "width", "num_frames", "repeat", "peer"):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return words
