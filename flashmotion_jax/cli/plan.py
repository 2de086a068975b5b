"""`flashmotion plan`: compile a run ahead of time for TPUs or GPUs that need not be attached."""

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
        help="compile a run ahead of time and report memory, FLOPs and a lower bound of its time",
        description="Compile the programs of a run ahead of time, without its devices or weights. "
        "Needs pip install 'flashmotion_jax[plan]'. The exit status is 1 if the run does not fit.",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config",
        type=options.path_text,
        metavar="NAME|F.py",
        help="configuration of a training run",
    )
    what.add_argument(
        "--sample",
        nargs="?",
        const="",
        metavar="DIR",
        help="plan sampling from a checkpoint folder (default: the published sizes), with one "
        "video per group of --devices devices",
    )
    options.add_adapter(parser, None, f"kind of adapter, for --sample (default: {DEFAULT_ADAPTER})")
    add(
        "--devices",
        type=options.positive,
        default=1,
        metavar="N",
        help="number of devices that share a video, for --sample (default: 1)",
    )
    options.add_weights(parser, "for --sample, bfloat16, or as stored")
    options.add_decoder(parser)
    options.add_attention(parser)
    options.add_overrides(parser, "mesh.fsdp=64")
    add(
        "--topology",
        required=True,
        metavar="KIND:SIZES",
        help="kind and shape of a TPU slice, such as v5p:4x4x4 or v6e:8x8, or kind and number of "
        "GPUs, such as h200:8 or a100:16",
    )
    options.add_size(
        parser,
        "in pixels (default: that of the run's cache or checkpoint, otherwise 704 x 1280, height "
        "x width)",
        "number of frames, 4 n + 1 (default: that of the run's cache or checkpoint, or 121)",
    )
    add("--json", metavar="F.json", help="also write the plan to this file")
    add(
        "--no-search",
        action="store_true",
        help="if the run does not fit, do not search for settings that fit",
    )
    options.set_outputs(parser, files=("json",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plans, prints the plan, and writes it.

    Returns:
      The exit status: 0 if the run fits, 1 if it does not.

    Raises:
      UserError: An argument is wrong.
      ImportError: The compiler for these devices is not installed.
    """
    from flashmotion_jax.perf.topology import open_topology, prepare_environment

    prepare_environment()
    from flashmotion_jax.config import TrainConfig, load_config, with_overrides
    from flashmotion_jax.models.attention import attending_with
    from flashmotion_jax.perf.plan import plan_sampling, plan_training
    from flashmotion_jax.perf.plan_report import to_json, to_lines
    from flashmotion_jax.runtime.atomic import replacing

    size, config = _video_size(args), None
    if args.config:
        config = with_overrides(load_config(args.config, TrainConfig), args.set)
    topology = open_topology(args.topology)
    with attending_with(args.attention):
        if config:
            plan = plan_training(config, topology, size, _say)
        else:
            kind = args.adapter or DEFAULT_ADAPTER
            adapter = None if kind == "none" else kind
            plan = plan_sampling(
                args.sample,
                adapter,
                topology,
                size,
                _say,
                args.devices,
                weights=args.weights,
                decoder=args.decoder,
            )
    for line in to_lines(plan):
        print(line)
    if args.json:
        values = to_json(plan, shlex.join(["flashmotion", "plan", *_words(args)]))
        with replacing(args.json) as scratch:
            scratch.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if plan.problems and config and not args.no_search:
        with attending_with(args.attention):
            _suggest(config, topology, size)
    verdict = "it does not fit" if plan.problems else "it fits"
    print(
        f"planned {args.config or 'sampling'}: {verdict}"
        + (f"; wrote {args.json}" if args.json else "")
    )
    return 1 if plan.problems else 0


def _video_size(args: argparse.Namespace) -> VideoSize | None:
    from flashmotion_jax.perf.sizes import VideoSize

    given = {name: getattr(args, name) for name in ("height", "width", "num_frames")}
    return (
        VideoSize().override(**given)
        if any(value is not None for value in given.values())
        else None
    )


def _suggest(config: TrainConfig, topology: Topology, size: VideoSize | None) -> None:
    """Prints a change with which the run fits, or that none was found."""
    from flashmotion_jax.perf.plan import suggest
    from flashmotion_jax.runtime.devices import GIB

    found = suggest(config, topology, size, _say)
    if found is None:
        print(
            f"found no change with which it fits {topology.name}; use more devices, or shorter or "
            "smaller videos (--num-frames, --height, --width)"
        )
        return
    assignments, plan = found
    total = max(one.memory.total for one in plan.compiled) / GIB
    changes = " ".join(f"--set {assignment}" for assignment in assignments)
    print(f"this fits, with {total:.1f} GiB: {changes}")


def _words(args: argparse.Namespace) -> list[str]:
    """The arguments that decide the plan, to record them."""
    words = ["--config", args.config] if args.config else ["--sample", *filter(None, [args.sample])]
    words += ["--topology", args.topology]
    for assignment in args.set:
        words += ["--set", assignment]
    for name in ("adapter", "weights", "height", "width", "num_frames"):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    words += ["--decoder", args.decoder] * (args.decoder != "full")
    return words + ["--devices", str(args.devices)] * (args.devices > 1)


def _say(text: str) -> None:
    options.print_status(f"{text} ...")
