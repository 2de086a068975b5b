"""`flashmotion evaluate`: scores a folder of generated videos, compares results, exports inputs."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from flashmotion_jax.cli import options
from flashmotion_jax.config import DEFAULT_ADAPTER, Resize
from flashmotion_jax.evaluation.benchmarks import LAYOUTS
from flashmotion_jax.runtime.errors import UserError

# Named here, too, because their modules are too slow to import for `--help`.
METHODS = ("tora", "draganything", "sg-i2v", "levitor", "magicmotion")
FID_PRESETS = ("pytorch-fid", "torch-fidelity", "clean-fid")
FVD_PRESETS = ("videogpt", "stylegan-v")


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser(
        "evaluate",
        help="score generated videos of any method, compare results, export inputs",
        description="Scores the videos of --pred on the benchmark in --root.",
    )
    _add_inputs(parser)
    _add_protocol(parser)
    _add_generation(parser)
    options.set_outputs(parser, folders=("out",))
    parser.set_defaults(run=_evaluate)
    commands = parser.add_subparsers(metavar="[compare|export]", required=False)
    _add_compare(commands)
    _add_export(commands)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bench", choices=LAYOUTS, help="benchmark, which decides how many frames are compared")
    add("--root", type=options.path_text, metavar="DIR", help="folder of the benchmark")
    add(
        "--pred",
        type=options.path_text,
        metavar="DIR",
        help="generated videos: <id>.mp4, or <id>/ of images",
    )
    add(
        "--masks",
        type=options.path_text,
        metavar="DIR",
        help="<id>/ with a label image for each generated frame, with the benchmark's labels "
        "(default: sprites are found by their colors; other benchmarks need it, or --sam2)",
    )
    add(
        "--sam2",
        nargs="?",
        const="facebook/sam2-hiera-large",
        type=options.path_text,
        metavar="MODEL",
        help="segment with SAM 2, starting from the benchmark's masks of frame 0: a folder or a "
        "name on Hugging Face (facebook/sam2-hiera-large without MODEL)",
    )
    add(
        "--tracks",
        type=options.path_text,
        metavar="DIR",
        help="<id>_tracks.npy of points in the generated videos, for the end-point error",
    )
    add(
        "--requested",
        type=options.path_text,
        metavar="DIR",
        help="<id>.json with the requested boxes (default: ROOT/trajectories)",
    )
    add(
        "--weights",
        type=options.path_text,
        metavar="DIR",
        help="weights of Inception and I3D from `flashmotion convert metrics`; measures FID and "
        "FVD",
    )
    add(
        "--out",
        default="evaluation",
        metavar="DIR",
        help="results (default: evaluation)",
    )


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--method-frames",
        type=int,
        metavar="N",
        help="for a method that generates only N frames: compare them with N uniformly spaced "
        "frames of the benchmark (default: all frames)",
    )
    add("--count-frame-0", action="store_true", help="count frame 0, which is given to the method")
    add(
        "--average",
        choices=("video", "pooled"),
        default="video",
        help="average over videos, or over all objects and frames (default: video)",
    )
    add(
        "--overlaps",
        choices=("smallest", "keep"),
        default="smallest",
        help="where found masks overlap, the smallest one wins, or all keep the pixel (default: "
        "smallest)",
    )
    add(
        "--resize",
        choices=get_args(Resize),
        help="how the benchmark's pictures reached the size of the videos: what a crop cut off is "
        "not compared (default: that of the model after --generate, else stretch)",
    )
    add(
        "--fid",
        choices=(*FID_PRESETS, "none"),
        help="how FID is computed, with --weights (default: pytorch-fid)",
    )
    add(
        "--fvd",
        choices=(*FVD_PRESETS, "none"),
        help="how FVD is computed, with --weights (default: videogpt)",
    )
    add(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="number of frames in a batch of Inception (default: 16)",
    )


def _add_generation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--generate", action="store_true", help="first generate the videos that --pred lacks")
    options.add_model(parser)
    options.add_adapter(
        parser,
        DEFAULT_ADAPTER,
        f"trajectory adapter of the checkpoint (default: {DEFAULT_ADAPTER})",
    )
    options.add_known_frames(parser)
    add("--seed", type=int, default=0, metavar="N", help="video i has seed N + i (default: 0)")
    add(
        "--num-frames",
        type=options.positive,
        metavar="N",
        help="frames of a generated video, of which the first are compared (default: 121 for "
        "magicbench and davis, as in the paper, or as many as the model makes; otherwise as many "
        "as are compared)",
    )
    add(
        "--part",
        type=options.part,
        default=(1, 1),
        metavar="N/M",
        help="generate and score part N of M; other processes take the other parts (default: all)",
    )


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare", help="test which differences between two results are significant"
    )
    add = parser.add_argument
    add(
        "first",
        type=options.path_text,
        metavar="A.json",
        help="result.json of an evaluation, or its folder",
    )
    add(
        "second", type=options.path_text, metavar="B.json", help="another one, of the same protocol"
    )
    add("--json", metavar="F.json", help="also write the comparison to this file")
    options.set_outputs(parser, files=("json",))
    parser.set_defaults(run=_compare)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser("export", help="write the inputs that another method needs")
    add = parser.add_argument
    add("--method", required=True, choices=METHODS, help="the method")
    add("--bench", required=True, choices=LAYOUTS, help="the benchmark")
    add(
        "--root",
        required=True,
        type=options.path_text,
        metavar="DIR",
        help="folder of the benchmark",
    )
    add(
        "--out",
        required=True,
        metavar="DIR",
        help="output, with a folder <id>/ for each video",
    )
    add("--num-frames", type=int, metavar="N", help="frames of the method (default: as published)")
    options.set_outputs(parser, folders=("out",))
    parser.set_defaults(run=_export)


def _evaluate(args: argparse.Namespace) -> int:
    import dataclasses

    from flashmotion_jax.evaluation.evaluate import EvaluateConfig, MissingPartsError, evaluate
    from flashmotion_jax.runtime.atomic import check_folder

    missing = [f"--{name}" for name in ("bench", "root", "pred") if getattr(args, name) is None]
    if missing:
        raise UserError(f"missing {', '.join(missing)}; see flashmotion evaluate --help")
    if args.generate:
        check_folder(args.pred)
    names = [field.name for field in dataclasses.fields(EvaluateConfig)]
    config = EvaluateConfig(**{name: getattr(args, name) for name in names})
    if config.adapter == "none":
        config = dataclasses.replace(config, adapter=None)
    try:
        with options.progress_bars() as progress:
            results = evaluate(config, progress)
    except MissingPartsError as missing_parts:
        print(missing_parts)
        return 0
    if config.generate:
        print(f"generated {results.generated} videos in {args.pred}; the others existed")
    for problem in results.problems:
        print(f"not scored: {problem.id}: {problem.reason}")
    print(results.to_markdown())
    print("".join(f"{name}: {value}\n" for name, value in results.protocol.described()))
    print(
        f"wrote {args.out}/result.json, scores.npz, report.md and report.html: "
        f"{len(results.scores)} videos, {len(results.problems)} not scored"
    )
    return 0


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
    from pathlib import Path

    from flashmotion_jax.evaluation.benchmarks import read_benchmark
    from flashmotion_jax.evaluation.exports import export_benchmark

    benchmark = read_benchmark(args.bench, args.root)
    with options.progress_bars() as progress:
        count, problems = export_benchmark(
            benchmark.items,
            args.method,
            Path(args.out),
            num_frames=args.num_frames,
            progress=progress,
        )
    problems = [*benchmark.problems, *problems]
    for problem in problems:
        print(f"not exported: {problem.id}: {problem.reason}")
    print(
        f"wrote {args.out}: inputs of {args.method} for {count} videos, "
        f"{len(problems)} not exported"
    )
    return 0 if count else 1
