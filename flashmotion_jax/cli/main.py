"""The `flashmotion` command: arguments in, one call of the package, a last line about the result.

jax is imported by the commands themselves, so that `--help` answers at once. Exit status: 0 done, 1
failed, 2 bad arguments or input, 130 interrupted, 143 stopped by a signal and saved.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from flashmotion_jax.cli.bench import add_parser as add_bench
from flashmotion_jax.cli.edit import add_parser as add_edit
from flashmotion_jax.cli.evaluate import add_parser as add_evaluate
from flashmotion_jax.cli.plan import add_parser as add_plan
from flashmotion_jax.config import MapKind
from flashmotion_jax.runtime.errors import exit_status, part_of

if TYPE_CHECKING:
    import numpy as np

    from flashmotion_jax.inference.pipeline import Pipeline
    from flashmotion_jax.inference.request import Request

#: Pixels below which a preview is enlarged, to be looked at on a screen.
PREVIEW_HEIGHT = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments after the program's name; None takes those of the process.

    Returns:
      The exit status.
    """
    args = build_parser().parse_args(argv)
    if getattr(args, "distributed", None):
        return exit_status("flashmotion", lambda: _run_together(args))
    return exit_status("flashmotion", lambda: args.run(args))


def _run_together(args: argparse.Namespace) -> int:
    from flashmotion_jax.runtime.distributed import run_together

    return run_together("flashmotion", args.distributed, lambda: args.run(args))


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="flashmotion", description="Four-step, trajectory-controlled image-to-video."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_sample(commands)
    _add_cache(commands)
    _add_train(commands)
    _add_new(commands)
    add_evaluate(commands)
    add_plan(commands)
    add_bench(commands)
    add_edit(commands)
    return parser


def _add_sample(commands: Any) -> None:
    parser = commands.add_parser("sample", help="make a video from image, prompt and trajectory")
    add = parser.add_argument
    add("--model", metavar="DIR", help="checkpoint (default: the small one of the package, 64x64)")
    add(
        "--adapter",
        choices=("resnet", "controlnet", "none"),
        help="the trajectory adapter (default: resnet with a trajectory, none without)",
    )
    add("--image", metavar="F", help="first frame (default: none, text-to-video)")
    add("--prompt", default="", metavar="TEXT", help="what happens (default: empty)")
    add(
        "--trajectory",
        metavar="F.json|F.mp4|DIR",
        help="boxes with keyframes, or a map video, or a folder of map PNGs",
    )
    add(
        "--kind",
        choices=get_args(MapKind),
        help="what a .json is rendered to (default: what the model was trained on)",
    )
    add(
        "--out",
        default="video.mp4",
        metavar="F.mp4|F.npy|DIR",
        help="the video; a name without suffix is a folder of PNGs (default: video.mp4)",
    )
    add(
        "--preview",
        metavar="F.mp4",
        help="also write the video beside its trajectory map, small ones enlarged",
    )
    _add_sampling(parser)
    parser.set_defaults(run=_sample)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """How it is sampled, and by what."""
    add = parser.add_argument
    add("--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)")
    add("--size", type=_size, metavar="HxW", help="pixels (default: fits the model and the image)")
    add("--frames", type=int, metavar="N", help="4 n + 1 (default: the model's)")
    add("--steps", type=int, metavar="N", help="denoising steps (default: the model's)")
    add(
        "--sampler",
        choices=("few_step", "unipc", "euler"),
        help="few_step for a distilled generator (default: the model's)",
    )
    add("--shift", type=float, metavar="X", help="of the noise levels (default: the model's)")
    add("--guidance", type=float, metavar="X", help="of unipc and euler (default: the model's)")
    add("--negative-prompt", metavar="TEXT", help="guided away from (default: the model's)")
    add(
        "--adapter-scale",
        type=float,
        default=1.0,
        metavar="X",
        help="weight of the trajectory, 0 ignores it (default: 1)",
    )
    add(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="of matmuls and convolutions (default: bfloat16; on a CPU float32)",
    )
    add(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="that share the video; each holds the model (default: 1)",
    )
    add("--prompt-cache", metavar="DIR", help="keep embeddings of prompts there for the next time")


def _add_cache(commands: Any) -> None:
    parser = commands.add_parser("cache", help="encode a data set once, for training")
    _add_config(parser)
    add = parser.add_argument
    add(
        "--part",
        type=part_of,
        metavar="N/M",
        help="make part N of M, the other parts elsewhere (default: all processes share)",
    )
    add("--verify", action="store_true", help="compare a finished cache with its hashes instead")
    parser.set_defaults(run=_cache)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser("train", help="train a stage")
    _add_config(parser)
    add = parser.add_argument
    add(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="go on with a run that is in the output folder, or refuse to (default: auto)",
    )
    add("--dry-run", action="store_true", help="tell what the run would be and take, and end")
    add(
        "--distributed",
        metavar="auto|PROCESS/COUNT@HOST:PORT",
        help="one of several processes that train as one: auto under Slurm and on TPU pods, "
        "elsewhere which of them (from 0), and where process 0 is (default: alone)",
    )
    parser.set_defaults(run=_train)


def _add_new(commands: Any) -> None:
    parser = commands.add_parser("new", help="write an untrained model, to train from nothing")
    add = parser.add_argument
    add("out", metavar="OUT", help="folder of the checkpoint, which must not exist")
    _add_config(parser)
    add("--seed", type=int, default=0, metavar="N", help="of the weights (default: 0)")
    parser.set_defaults(run=_new)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        metavar="F.py",
        help="a file of configs/; what follows a colon is handed to it",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a field, for instance stage.optimizer.learning_rate=1e-5; repeatable",
    )


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected HxW, for instance 704x1280") from None
    return height, width


def _sample(args: argparse.Namespace) -> int:
    from flashmotion_jax.inference.pipeline import Pipeline
    from flashmotion_jax.media.videos import check_output, write_video

    outputs = [Path(path) for path in (args.out, args.preview) if path]
    for path in outputs:
        check_output(path)
    kind = args.adapter or ("resnet" if args.trajectory else "none")
    adapter = None if kind == "none" else kind
    pipeline = Pipeline.load(
        args.model,
        adapter,
        dtype=args.dtype,
        keep_loaded=False,
        devices=args.devices,
        prompt_cache=args.prompt_cache,
    )
    chosen = {
        name: getattr(args, name)
        for name in ("sampler", "shift", "negative_prompt")
        if getattr(args, name) is not None
    }
    request = pipeline.request(
        args.image,
        args.prompt,
        args.trajectory,
        args.seed,
        sampling=dataclasses.replace(pipeline.sampling, **chosen),
        steps=args.steps,
        size=args.size,
        frames=args.frames,
        guidance=args.guidance,
        adapter_scale=args.adapter_scale,
        kind=args.kind,
    )
    video = _run_with_bars(pipeline, request)
    fps = request.sampling.fps
    start = time.perf_counter()
    write_video(outputs[0], video, fps)
    if args.preview:
        write_video(outputs[1], _enlarged(_beside_map(video, request)), fps)
    _print_times(pipeline, time.perf_counter() - start)
    print(
        f"wrote {' and '.join(map(str, outputs))}: {request.num_frames} frames, "
        f"{request.width} x {request.height}, {fps} fps"
    )
    return 0


def _cache(args: argparse.Namespace) -> int:
    import jax

    from flashmotion_jax.config import CacheConfig, load_config, to_dict, with_overrides
    from flashmotion_jax.data.cache_dataset import cache_dataset
    from flashmotion_jax.data.latent_cache import verify_cache

    config = with_overrides(load_config(args.config, CacheConfig), args.set)
    if args.verify:
        damaged = verify_cache(config.output)
        for file in damaged:
            print(f"damaged: {file}")
        print(f"{config.output}: {len(damaged)} damaged files")
        return 1 if damaged else 0
    number, count = args.part or (jax.process_index() + 1, jax.process_count())
    with _bars() as progress:
        cache = cache_dataset(
            **to_dict(config), process_index=number - 1, process_count=count, progress=progress
        )
    if cache is None:
        print(f"part {number} of {count} of {config.output} is there; others are still missing")
        return 0
    print(
        f"{config.output}: {len(cache)} videos, {cache.num_bytes / 1e9:.2f} GB; "
        f"{cache.num_rejected} rows left out, see {config.output}/report.json"
    )
    return 0


def _train(args: argparse.Namespace) -> int:
    from flashmotion_jax.config import TrainConfig, load_config, with_overrides

    config = with_overrides(load_config(args.config, TrainConfig), args.set)
    if args.dry_run:
        from flashmotion_jax.training.dry_run import describe

        for line in describe(config):
            print(line, flush=True)
        return 0
    from flashmotion_jax.training.loop import train

    outcome = train(config, resume=args.resume)
    if outcome.model is None:
        print(f"stopped after step {outcome.steps}; the same command goes on from there")
        return 143
    print(f"{outcome.steps} steps of {config.output}; wrote {outcome.model}")
    return 0


def _new(args: argparse.Namespace) -> int:
    from flashmotion_jax.checkpoints.init import FreshConfig, write_fresh
    from flashmotion_jax.config import load_config, with_overrides

    config = with_overrides(load_config(args.config, FreshConfig), args.set)
    num_parameters = write_fresh(args.out, config, args.seed)
    print(f"wrote {args.out}: {num_parameters / 1e6:.2f} M parameters, untrained")
    return 0


def _run_with_bars(pipeline: Pipeline, request: Request) -> np.ndarray:
    """Runs a request of one video with a progress bar for each stage."""
    with _bars() as progress:
        return pipeline.run(request, progress)[0]


@contextmanager
def _bars() -> Generator[Callable[[str, int, int], None], None, None]:
    """A progress bar for each stage that is reported."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            bars[stage] = tqdm(total=total, desc=f"{stage:8}", unit="step", file=sys.stderr)
        bar = bars[stage]
        bar.update(max(0, done - bar.n))
        if done == total:
            bar.close()

    try:
        yield progress
    finally:
        for bar in bars.values():
            bar.close()


def _beside_map(video: np.ndarray, request: Request) -> np.ndarray:
    """The trajectory map to the left of the video, or the video alone without one."""
    import numpy as np

    return video if request.maps is None else np.concatenate([request.maps[0], video], axis=2)


def _enlarged(video: np.ndarray) -> np.ndarray:
    """A small video with each pixel repeated, to a height of about `PREVIEW_HEIGHT`."""
    factor = max(1, PREVIEW_HEIGHT // video.shape[1])
    return video.repeat(factor, axis=1).repeat(factor, axis=2)


def _print_times(pipeline: Pipeline, write_seconds: float) -> None:
    """One row a stage: seconds to load its model, and to compile and run."""
    print(f"{'stage':10}{'load s':>9}{'run s':>9}")
    for stage, load, run in pipeline.stage_times:
        print(f"{stage:10}{load:9.2f}{run:9.2f}")
    total = write_seconds + sum(load + run for _, load, run in pipeline.stage_times)
    print(f"{'write':10}{'':9}{write_seconds:9.2f}")
    print(f"{'total':10}{'':9}{total:9.2f}")
