"""`flashmotion evaluate`: scores a folder of generated videos, compares results, exports inputs."""

from __future__ import annotations

import argparse
from typing import Any

from flashmotion_jax.cli import options
from flashmotion_jax.config import DEFAULT_ADAPTER
from flashmotion_jax.runtime.errors import UserError

BENCHES = ("flashbench", "magicbench", "davis", "movebench", "sprites", "folder")
METHODS = ("tora", "draganything", "sg-i2v", "levitor", "magicmotion")
FID_PRESETS = ("pytorch-fid", "torch-fidelity", "clean-fid")
FVD_PRESETS = ("videogpt", "stylegan-v")


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser(
        "evaluate",
        help="score a folder of videos of any method, compare results, export inputs",
        description="Without a further word: scores --pred against --root.",
    )
    _add_inputs(parser)
    _add_choices(parser)
    _add_generation(parser)
    parser.set_defaults(run=_score)
    words = parser.add_subparsers(metavar="[compare|export]", required=False)
    _add_compare(words)
    _add_export(words)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bench", choices=BENCHES, help="the benchmark and its number of frames")
    add("--root", metavar="DIR", help="folder of the benchmark")
    add("--pred", metavar="DIR", help="generated: <id>.mp4, or <id>/ of images")
    add(
        "--masks",
        metavar="DIR",
        help="<id>/ with a label picture a generated frame, in the benchmark's labels (default: "
        "sprites are found by their colors; others need it, or --sam2)",
    )
    add(
        "--sam2",
        nargs="?",
        const="facebook/sam2-hiera-large",
        metavar="MODEL",
        help="segment with SAM 2 from the benchmark's masks of frame 0: folder or name "
        "(without one: facebook/sam2-hiera-large)",
    )
    add(
        "--tracks",
        metavar="DIR",
        help="<id>_tracks.npy of points of the generated videos, for the end-point error",
    )
    add(
        "--requested",
        metavar="DIR",
        help="<id>.json with the boxes that were asked for (default: ROOT/trajectories)",
    )
    add(
        "--weights",
        metavar="DIR",
        help="Inception and I3D of `python -m converters metrics`: measures FID and FVD",
    )
    add("--out", default="evaluation", metavar="DIR", help="results (default: evaluation)")


def _add_choices(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--method-frames",
        type=int,
        metavar="N",
        help="the method makes only N frames: hold them against N uniform ones of the benchmark's "
        "(default: all)",
    )
    add("--count-frame-0", action="store_true", help="count the given frame (default: leave it)")
    add(
        "--average",
        choices=("video", "pooled"),
        default="video",
        help="mean of videos' means, or of all objects and frames (default: video)",
    )
    add(
        "--overlaps",
        choices=("smallest", "keep"),
        default="smallest",
        help="found masks that overlap: the smallest on top, or as they are (default: smallest)",
    )
    add(
        "--fid",
        choices=(*FID_PRESETS, "none"),
        help="whose FID, with --weights (default: pytorch-fid)",
    )
    add(
        "--fvd",
        choices=(*FVD_PRESETS, "none"),
        help="whose FVD, with --weights (default: videogpt)",
    )
    add(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="frames that go through Inception together (default: 16)",
    )


def _add_generation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--generate", action="store_true", help="first make the videos that --pred lacks")
    options.add_model(parser)
    options.add_adapter(
        parser,
        DEFAULT_ADAPTER,
        f"trajectory adapter of the checkpoint (default: {DEFAULT_ADAPTER})",
    )
    add("--seed", type=int, default=0, metavar="N", help="video i takes N + i (default: 0)")
    add(
        "--part",
        type=options.part,
        metavar="N/M",
        help="make and score part N of M; other processes, each on a device, the others "
        "(default: all)",
    )


def _add_compare(words: Any) -> None:
    parser = words.add_parser("compare", help="which differences of two results are significant")
    add = parser.add_argument
    add("first", metavar="A.json", help="result.json of an evaluation, or its folder")
    add("second", metavar="B.json", help="likewise, of the same protocol")
    add("--json", metavar="F.json", help="also write the comparison there")
    parser.set_defaults(run=_compare)


def _add_export(words: Any) -> None:
    parser = words.add_parser("export", help="write another method's inputs from a benchmark")
    add = parser.add_argument
    add("--method", required=True, choices=METHODS, help="whose")
    add("--bench", required=True, choices=BENCHES, help="the benchmark")
    add("--root", required=True, metavar="DIR", help="its folder")
    add("--out", required=True, metavar="DIR", help="a folder <id>/ for each video")
    add("--frames", type=int, metavar="N", help="of the method (default: as published)")
    parser.set_defaults(run=_export)


def _score(args: argparse.Namespace) -> int:
    from flashmotion_jax.evaluation.run import run

    missing = [f"--{name}" for name in ("bench", "root", "pred") if getattr(args, name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} missing: see flashmotion evaluate --help")
    return run(args)


def _compare(args: argparse.Namespace) -> int:
    import json
    from pathlib import Path

    from flashmotion_jax.evaluation.compare import compare, read_result
    from flashmotion_jax.runtime.atomic import replacing

    found = compare(read_result(args.first), read_result(args.second))
    print(found.to_markdown(args.first, args.second), end="")
    if args.json:
        with replacing(Path(args.json)) as scratch:
            text = json.dumps(found.to_dict(), indent=1)
            scratch.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {args.json}")
    return 0


def _export(args: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from tqdm import tqdm

    from flashmotion_jax.evaluation.benchmarks import read_benchmark
    from flashmotion_jax.evaluation.exports import export_benchmark

    benchmark = read_benchmark(args.bench, args.root)
    with tqdm(total=len(benchmark.items), desc="export", unit="video", file=sys.stderr) as bar:
        count, faults = export_benchmark(
            benchmark.items,
            args.method,
            Path(args.out),
            frames=args.frames,
            progress=lambda done, total: bar.update(1),
        )
    for fault in (*benchmark.faults, *faults):
        print(f"not exported: {fault.id}: {fault.reason}")
    print(
        f"wrote {args.out}: inputs of {args.method} for {count} videos, "
        f"{len(benchmark.faults) + len(faults)} not exported"
    )
    return 0 if count else 1
