"""`flashmotion sample`: generates a video from an image, a prompt and a trajectory."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from flashmotion_jax.cli import options
from flashmotion_jax.config import DEFAULT_ADAPTER, MapKind
from flashmotion_jax.config.sampling import (
    Resize,
    Sampler,
    SizeFrom,
    SolverGrid,
    TimestepRounding,
)
from flashmotion_jax.runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from flashmotion_jax.inference.pipeline import Pipeline
    from flashmotion_jax.inference.request import Request
    from flashmotion_jax.trajectory import Camera

#: Fields of the model's `SamplingConfig` that options of the same name replace.
_OVERRIDES = (
    "sampler",
    "timestep_rounding",
    "solver_grid",
    "shift",
    "negative_prompt",
    "size_from",
    "resize",
)
#: Values of `--few-step-grid` -> `SamplingConfig.warp_denoising_steps`.
_FEW_STEP_GRIDS = {"warped": True, "raw": False}


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser(
        "sample", help="generate a video from an image, a prompt and a trajectory"
    )
    options.add_model(parser)
    options.add_adapter(
        parser,
        None,
        f"trajectory adapter (default: {DEFAULT_ADAPTER} with a trajectory, none without)",
    )
    _add_images(parser)
    _add_inputs(parser)
    _add_sampling(parser)
    options.set_outputs(
        parser,
        videos=("out", "preview", "live_preview"),
        folders=("profile", "prompt_cache"),
    )
    parser.set_defaults(run=run)


def _add_images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--image",
        type=options.path_text,
        metavar="F",
        help="first frame (default: none, text-to-video, which the included model cannot do)",
    )
    add(
        "--last-image",
        type=options.path_text,
        metavar="F",
        help="last frame, for models that were trained with one",
    )
    add(
        "--keyframe",
        type=options.key_frame,
        action="append",
        default=[],
        metavar="FRAME=F",
        help="another frame of the video, for models that were trained with some; repeatable",
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--lora",
        type=options.lora,
        action="append",
        default=[],
        metavar="F[:WEIGHT]",
        help="merge a LoRA into the generator, or into the adapter if it says that it is for one "
        "(default weight: 1; repeatable), see docs/lora.md",
    )
    add("--prompt", default="", metavar="TEXT", help="description of the video (default: empty)")
    add(
        "--trajectory",
        type=options.path_text,
        metavar="F.json|F.mp4|DIR",
        help="trajectory.json, maps (video or PNG files), or another format: docs/trajectories.md",
    )
    add(
        "--map-kind",
        choices=get_args(MapKind),
        help="how to draw a trajectory (default: as in training of the model)",
    )
    options.add_known_frames(parser)
    options.add_camera(parser)
    add(
        "--out",
        default="video.mp4",
        metavar="F.mp4|F.npy|DIR",
        help="output; a name without a suffix is a folder of PNG files (default: video.mp4)",
    )
    add(
        "--preview",
        metavar="F.mp4",
        help="also write the video next to its trajectory map, enlarged if it is small",
    )
    add(
        "--live-preview",
        metavar="F.mp4",
        help="also write, after each denoising step, the video as it is predicted then, next to "
        "its trajectory map; decoded by the model's tiny VAE, replaced by each step",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    options.add_size(
        parser,
        "in pixels (default: by --size-from)",
        "number of frames, 4 n + 1 (default: the model's)",
    )
    add("--steps", type=int, metavar="N", help="number of inference steps (default: the model's)")
    add(
        "--sampler",
        choices=get_args(Sampler),
        help="sampler; few_step requires a distilled generator (default: the model's)",
    )
    _add_conventions(parser)
    add("--shift", type=float, metavar="X", help="shift of the noise levels (default: the model's)")
    add(
        "--guidance-scale",
        type=float,
        metavar="X",
        help="guidance scale of unipc, dpm++ and euler; 1 is no guidance (default: the model's)",
    )
    add("--negative-prompt", metavar="TEXT", help="what to avoid (default: the model's)")
    add(
        "--adapter-scale",
        type=float,
        default=1.0,
        metavar="X",
        help="weight of the trajectory; 0 ignores it (default: 1)",
    )
    options.add_decoder(parser)
    options.add_dtype(parser)
    options.add_attention(parser)
    options.add_weights(parser, "as --dtype; 8 bits if they are stored so")
    add(
        "--devices",
        type=options.positive,
        default=1,
        metavar="N",
        help="number of devices that share the video; each holds all weights (default: 1)",
    )
    add(
        "--prompt-cache",
        metavar="DIR",
        help="folder for caching prompt embeddings between runs",
    )
    add(
        "--profile",
        metavar="DIR",
        help="record a JAX profiler trace of the run there, for TensorBoard or Perfetto",
    )


def _add_conventions(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--few-step-grid",
        choices=tuple(_FEW_STEP_GRIDS),
        help="noise levels of few_step: shifted, as in training of FlashMotion, or as listed, as "
        "in Turbo's own inference (default: the model's)",
    )
    add(
        "--timestep-rounding",
        choices=get_args(TimestepRounding),
        help="timesteps that few_step tells the model (default: the model's)",
    )
    add(
        "--solver-grid",
        choices=get_args(SolverGrid),
        help="noise levels of the other samplers (default: the model's)",
    )
    add(
        "--size-from",
        choices=get_args(SizeFrom),
        help="size without --height and --width: the model's, or its area in the aspect ratio of "
        "the image (default: the model's choice)",
    )
    add(
        "--resize",
        choices=get_args(Resize),
        help="how image and maps reach the size: cropped to its aspect ratio, or stretched "
        "(default: the model's)",
    )


def run(args: argparse.Namespace) -> int:
    """Samples a video, writes it, and prints how long each stage took.

    Raises:
      UserError: an argument or an input file is wrong; nothing has been loaded yet.
    """
    from flashmotion_jax.inference.pipeline import Pipeline
    from flashmotion_jax.media.videos import write_video
    from flashmotion_jax.models.attention import attending_with
    from flashmotion_jax.trajectory import Camera

    camera = Camera.parse(args.camera) if args.camera else None
    if camera is not None and args.trajectory is None:
        raise UserError(f"--camera {args.camera[0]:.60} needs a --trajectory; give one, or omit it")
    if args.adapter not in (None, "none") and args.trajectory is None:
        raise UserError(f"--adapter {args.adapter} needs a --trajectory; give one, or no adapter")
    paths = (args.out, args.preview, args.live_preview)
    outputs = [Path(path) for path in paths if path is not None]
    pipeline = Pipeline.from_pretrained(
        args.model,
        args.adapter or (DEFAULT_ADAPTER if args.trajectory else "none"),
        dtype=args.dtype,
        weights=args.weights,
        keep_loaded=False,
        devices=args.devices,
        prompt_cache=args.prompt_cache,
    )
    if pipeline.domain.notice:
        options.print_status(pipeline.domain.notice)
    for file, weight in args.lora:
        options.print_status(f"{pipeline.load_lora(file, weight)}, weight {weight:g}")
    request = _request(pipeline, args, camera)
    fps = request.sampling.fps
    with (
        attending_with(args.attention),
        options.progress_bars() as progress,
        _profiler(args.profile),
        _live_preview(args.live_preview, request) as on_preview,
    ):
        video = pipeline.run(request, progress, on_preview)[0]
    start = time.perf_counter()
    write_video(outputs[0], video, fps)
    if args.preview:
        write_video(args.preview, _enlarged(_beside_map(video, request)), fps)
    _print_times(pipeline, time.perf_counter() - start)
    print(
        f"wrote {' and '.join(map(str, outputs))}: {request.num_frames} frames, "
        f"{request.width} x {request.height}, {fps} fps"
        + (f"; profile in {args.profile}" if args.profile else "")
    )
    return 0


def _profiler(folder: str | None) -> AbstractContextManager[None]:
    """Records a trace for TensorBoard or Perfetto, if a folder is given."""
    import jax

    return jax.profiler.trace(folder) if folder else nullcontext()


def _live_preview(path: str | None, request: Request) -> AbstractContextManager[Any]:
    """Writes previews while denoising, if a file is given."""
    from flashmotion_jax.inference.previews import PreviewWriter

    if path is None:
        return nullcontext()
    arrange = functools.partial(_beside_map, request=request)
    return PreviewWriter(path, request.sampling.fps, arrange=arrange)


def _request(pipeline: Pipeline, args: argparse.Namespace, camera: Camera | None) -> Request:
    chosen = {name: getattr(args, name) for name in _OVERRIDES if getattr(args, name) is not None}
    if args.few_step_grid is not None:
        chosen["warp_denoising_steps"] = _FEW_STEP_GRIDS[args.few_step_grid]
    return pipeline.request(
        args.image,
        args.prompt,
        args.trajectory,
        args.seed,
        sampling=dataclasses.replace(pipeline.sampling, **chosen),
        num_inference_steps=args.steps,
        height=args.height,
        width=args.width,
        num_frames=args.num_frames,
        guidance_scale=args.guidance_scale,
        adapter_scale=args.adapter_scale,
        map_kind=args.map_kind,
        known_frames=args.known_frames,
        camera=camera,
        last_image=args.last_image,
        key_frames=_key_frames(args.keyframe),
        decoder=args.decoder,
    )


def _key_frames(given: list[tuple[int, str]]) -> dict[int, str]:
    frames = [frame for frame, _ in given]
    if twice := [frame for frame in frames if frames.count(frame) > 1]:
        raise UserError(f"--keyframe {twice[0]} is given twice; leave one out")
    return dict(given)


def _beside_map(video: np.ndarray, request: Request) -> np.ndarray:
    """Puts the trajectory map to the left of the video; without one, returns the video."""
    import numpy as np

    return video if request.maps is None else np.concatenate([request.maps[0], video], axis=2)


def _enlarged(video: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small video up to a height of about `PREVIEW_HEIGHT`."""
    from flashmotion_jax.inference.previews import PREVIEW_HEIGHT

    factor = max(1, PREVIEW_HEIGHT // video.shape[1])
    return video.repeat(factor, axis=1).repeat(factor, axis=2)


def _print_times(pipeline: Pipeline, write_seconds: float) -> None:
    """Prints a row per stage: seconds to load its model, and to compile and run."""
    print(f"{'stage':10}{'load s':>9}{'run s':>9}")
    for row in pipeline.stage_times:
        print(f"{row.stage:10}{row.load:9.2f}{row.run:9.2f}")
    total = write_seconds + sum(row.load + row.run for row in pipeline.stage_times)
    print(f"{'write':10}{'':9}{write_seconds:9.2f}")
    print(f"{'total':10}{'':9}{total:9.2f}")
