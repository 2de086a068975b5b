"""`flashmotion plan`: compiles a run for devices that are not there."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING, Any

from flashmotion_jax.cli import options
from flashmotion_jax.config import DEFAULT_ADAPTER

if TYPE_CHECKING:
    from flashmotion_jax.config import TrainConfig
    from flashmotion_jax.perf.sizes import VideoSize
    from flashmotion_jax.perf.topology import Topology


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser(
        "plan",
        help="compile a run for devices that are not there: memory, work, time",
        description="Compiles the programs of a run ahead of time, without its devices and without "
        "weights; needs pip install 'flashmotion_jax[plan]'. Exit status 1: it does not fit.",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="F.py", help="a training run of configs/")
    what.add_argument(
        "--sample",
        nargs="?",
        const="",
        metavar="DIR",
        help="making a video with a checkpoint (default: published sizes), on each device one or "
        "on --devices of them",
    )
    options.add_adapter(parser, None, f"of --sample (default: {DEFAULT_ADAPTER})")
    add(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="of --sample, that share each video (default: 1)",
    )
    options.add_overrides(parser, "mesh.fsdp=64")
    add(
        "--topology",
        required=True,
        metavar="KIND:SIZES",
        help="v5p:4x4x4, v6e:8x8 (TPUs: sides of the slice), h200:8, a100:16 (GPUs: their number)",
    )
    options.add_size(
        parser,
        "of a video in pixels (default: that of the run's cache or checkpoint, or 1280 x 704, "
        "width x height)",
        "of a video, 4 n + 1 (default: that of the run's cache or checkpoint, or 121)",
    )
    add("--json", metavar="F.json", help="write the plan there too")
    add(
        "--no-search",
        action="store_true",
        help="where it does not fit, compile no others to find one that does",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plans, prints, and writes the plan.

    Returns:
      The exit status: 0 if it fits, 1 if it does not.

    Raises:
      UserError: an argument is wrong.
      ImportError: the compiler for these devices is not installed.
    """
    from flashmotion_jax.perf.topology import open_topology, prepare_environment

    prepare_environment()
    from flashmotion_jax.config import TrainConfig, load_config, with_overrides
    from flashmotion_jax.perf.plan import plan_sampling, plan_training
    from flashmotion_jax.perf.report import to_json, to_lines
    from flashmotion_jax.runtime.atomic import check_file, replacing

    if args.json:
        check_file(args.json)
    topology, size, config = open_topology(args.topology), _video_size(args), None
    if args.config:
        config = with_overrides(load_config(args.config, TrainConfig), args.set)
        plan = plan_training(config, topology, size, _say)
    else:
        kind = args.adapter or DEFAULT_ADAPTER
        adapter = None if kind == "none" else kind
        plan = plan_sampling(args.sample, adapter, topology, size, _say, args.devices)
    for line in to_lines(plan):
        print(line)
    if args.json:
        values = to_json(plan, shlex.join(["flashmotion", "plan", *_words(args)]))
        with replacing(args.json) as scratch:
            scratch.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if plan.faults and config and not args.no_search:
        _suggest(config, topology, size)
    verdict = "it does not fit" if plan.faults else "it fits"
    print(
        f"planned {args.config or 'sampling'}: {verdict}"
        + (f"; wrote {args.json}" if args.json else "")
    )
    return 1 if plan.faults else 0


def _video_size(args: argparse.Namespace) -> VideoSize | None:
    from flashmotion_jax.perf.sizes import VideoSize

    given = {name: getattr(args, name) for name in ("height", "width", "num_frames")}
    return VideoSize().override(**given) if any(given.values()) else None


def _suggest(config: TrainConfig, topology: Topology, size: VideoSize | None) -> None:
    """Says what would fit, or that nothing that was tried does."""
    from flashmotion_jax.perf.plan import suggest
    from flashmotion_jax.runtime.devices import GIB

    found = suggest(config, topology, size, _say)
    if found is None:
        print(
            f"nothing that was tried fits {topology.name}: take more devices, or shorter or "
            "smaller videos (--num-frames, --height, --width)"
        )
        return
    assignments, plan = found
    needed = max(one.memory.needed for one in plan.compiled) / GIB
    changes = " ".join(f"--set {assignment}" for assignment in assignments)
    print(f"this fits, with {needed:.1f} GiB: {changes}")


def _words(args: argparse.Namespace) -> list[str]:
    """The arguments that decide a plan."""
    words = ["--config", args.config] if args.config else ["--sample", *filter(None, [args.sample])]
    words += ["--topology", args.topology]
    for assignment in args.set:
        words += ["--set", assignment]
    for name in ("adapter", "height", "width", "num_frames"):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return words + ["--devices", str(args.devices)] * (args.devices > 1)


def _say(text: str) -> None:
    options.print_status(f"{text} ...")
