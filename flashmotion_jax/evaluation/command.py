"""`flashmotion evaluate`: scores a folder of generated videos against a benchmark."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

BENCHES = ("flashbench", "magicbench", "davis", "sprites", "folder")


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser("evaluate", help="score a folder of videos of any method")
    add = parser.add_argument
    add("--bench", required=True, choices=BENCHES, help="the benchmark and its number of frames")
    add("--root", required=True, metavar="DIR", help="folder of the benchmark")
    add("--pred", required=True, metavar="DIR", help="generated: <id>.mp4, or <id>/ of images")
    add(
        "--masks",
        metavar="DIR",
        help="<id>/ with a label picture a generated frame, in the benchmark's labels (default: "
        "sprites are found by their colours; others need it)",
    )
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
    add("--out", default="evaluation", metavar="DIR", help="results (default: evaluation)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scores, prints the table and what is missing, and writes the results.

    Raises:
      ValueError: an argument is wrong, or no video could be scored.
    """
    from tqdm import tqdm

    from flashmotion_jax.evaluation.benchmarks import read_benchmark
    from flashmotion_jax.evaluation.results import to_table, write_results
    from flashmotion_jax.evaluation.scoring import Protocol, Score, score_video
    from flashmotion_jax.evaluation.segmenters import precomputed, sprite_colours

    if args.masks is None and args.bench != "sprites":
        raise ValueError(f"--bench {args.bench} needs --masks DIR, made by a segmenter")
    pred = Path(args.pred)
    if not pred.is_dir():
        raise ValueError(f"no folder {pred}: give that of the generated videos")
    protocol = Protocol(
        args.bench,
        "masks" if args.masks else "colours",
        args.method_frames,
        args.count_frame_0,
        args.average,
    )
    benchmark = read_benchmark(args.bench, args.root)
    segmenter = precomputed(args.masks) if args.masks else sprite_colours(args.root)
    bar = tqdm(benchmark.items, desc="evaluate", unit="video", file=sys.stderr)
    scored = [score_video(item, pred, segmenter, args.method_frames) for item in bar]
    scores = [one for one in scored if isinstance(one, Score)]
    faults = [*benchmark.faults, *(one for one in scored if not isinstance(one, Score))]
    for fault in faults:
        print(f"not scored: {fault.id}: {fault.reason}")
    if not scores:
        raise ValueError(f"none of {len(faults)} videos could be scored, see above")
    folders = {"root": args.root, "pred": args.pred, "masks": args.masks}
    rows = write_results(Path(args.out), protocol, folders, scores, faults)
    print(to_table(protocol, rows, len(faults)))
    print(
        f"wrote {args.out}/result.json, scores.npz and table.md: {len(scores)} videos, "
        f"{len(faults)} not scored"
    )
    return 0
