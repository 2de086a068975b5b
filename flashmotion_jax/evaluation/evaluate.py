"""`evaluate`: generates missing videos, scores what is not scored yet, and collects the results."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flashmotion_jax.config import DEFAULT_ADAPTER, Resize
from flashmotion_jax.evaluation.benchmarks import layout_of, read_benchmark
from flashmotion_jax.evaluation.benchmarks.base import Item, Problem
from flashmotion_jax.evaluation.conditions import with_requests
from flashmotion_jax.evaluation.generate import Part, generate, items_of_part, recorded_resize
from flashmotion_jax.evaluation.metrics import DISTANCES, is_measured
from flashmotion_jax.evaluation.metrics.base import Average, FeatureOptions, Features
from flashmotion_jax.evaluation.protocol import Overlaps, Protocol
from flashmotion_jax.evaluation.reports.report import write_report
from flashmotion_jax.evaluation.results import Results, collect
from flashmotion_jax.evaluation.scoring import Score, Scorer
from flashmotion_jax.evaluation.segmenters import (
    Segmenter,
    precomputed,
    smallest_on_top,
    sprite_colors,
)
from flashmotion_jax.evaluation.store import Store
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.lock import sole_writer
from flashmotion_jax.runtime.progress import Progress


@dataclass(frozen=True)
class EvaluateConfig:
    """An evaluation of generated videos.

    Attributes:
      bench: Name of the benchmark.
      root: Folder of the benchmark.
      pred: Folder of the generated videos, `<id>.mp4` or `<id>/` of images.
      out: Folder of the results.
      masks: Folder of `<id>/` with a label image for each generated frame.
      sam2: SAM 2 model that segments the generated videos; a folder or a name on Hugging Face.
      tracks: Folder of `<id>_tracks.npy`, points tracked in the generated videos.
      requested: Folder of `<id>.json` with the requested boxes; None for ROOT/trajectories.
      weights: Folder of Inception and I3D, with which FID and FVD are measured.
      fid: Preset of FID or "none"; None for "pytorch-fid" if there are weights.
      fvd: Preset of FVD or "none"; None for "videogpt" if there are weights.
      batch_size: Frames that go through Inception together.
      method_frames: See `Protocol`.
      count_frame_0: See `Protocol`.
      average: See `Protocol`.
      overlaps: See `Protocol`.
      resize: See `Protocol`; None for that of the model if `generate` made the videos, or
        "stretch".
      generate: Whether to generate the videos that `pred` lacks first.
      num_frames: Frames of a generated video, of which the first are compared; None for the paper's
        number (121 for MagicBench and DAVIS) if the model makes as many, or as many as it makes.
      model: Checkpoint that generates them; None for the one in the package.
      adapter: Its trajectory adapter; None for none.
      known_frames: Frames on which a sparse adapter knows the trajectory, or "all"; None for its
        keyframes.
      seed: Video i has the noise of `seed + i`.
      part: Number, from 1, and number of parts that processes share.
    """

    bench: str
    root: str | Path
    pred: str | Path
    out: str | Path = "evaluation"
    masks: str | Path | None = None
    sam2: str | None = None
    tracks: str | Path | None = None
    requested: str | Path | None = None
    weights: str | Path | None = None
    fid: str | None = None
    fvd: str | None = None
    batch_size: int = 16
    method_frames: int | None = None
    count_frame_0: bool = False
    average: Average = "video"
    overlaps: Overlaps = "smallest"
    resize: Resize | None = None
    generate: bool = False
    num_frames: int | None = None
    model: str | Path | None = None
    adapter: str | None = DEFAULT_ADAPTER
    known_frames: tuple[int, ...] | Literal["all"] | None = None
    seed: int = 0
    part: Part = (1, 1)


class MissingPartsError(UserError):
    """This part of an evaluation is done, and others are not."""


def evaluate(config: EvaluateConfig, progress: Progress | None = None) -> Results:
    """Evaluates generated videos, and writes the results into `config.out`.

    What was measured of a video is kept there, so an interrupted evaluation resumes.

    Args:
      config: What is evaluated, and how.
      progress: Called with "generate" or "evaluate", the number of finished videos and of all.

    Returns:
      The results, which are also written.

    Raises:
      MissingPartsError: Other parts have videos that are not scored yet.
      OSError: The disk or the network failed; what was measured before is kept.
      UserError: The configuration does not fit, or no video could be scored.
    """
    protocol = protocol_of(config)
    pred = Path(config.pred)
    if not pred.is_dir() and not config.generate:
        raise UserError(f"no folder {pred}: give that of the generated videos, or --generate")
    with _sole_writer(config):
        return _evaluate(config, protocol, progress)


def _evaluate(config: EvaluateConfig, protocol: Protocol, progress: Progress | None) -> Results:
    pred, out = Path(config.pred), Path(config.out)
    features = _features(config, protocol)
    weights = {name: file.name for name, one in features.items() if (file := _file(one))}
    benchmark = read_benchmark(config.bench, config.root)
    requested = _path(config.requested)
    items = [with_requests(item, requested) for item in benchmark.items]
    generated = _generate(config, items, progress) if config.generate else 0
    protocol = replace(protocol, resize=config.resize or recorded_resize(pred))
    store = Store(out / "videos", _depends(config, protocol, weights), pred)
    scorer = Scorer(
        pred,
        _segmenter(config, protocol),
        protocol.method_frames,
        _path(config.tracks),
        features,
        config.bench,
        protocol.resize,
    )
    _score([item for _, item in items_of_part(items, config.part)], scorer, store, progress)
    scored, problems = _stored(store, items)
    problems = [*benchmark.problems, *problems]
    if not scored:
        raise UserError(
            f"none of {len(problems)} videos could be scored; the first is {problems[0].id}: "
            f"{problems[0].reason}"
        )
    folders = {
        name: value if value is None else str(value)
        for name in ("root", "pred", "masks", "tracks")
        for value in [getattr(config, name)]
    }
    about = {"folders": folders, "weights": weights}
    results = collect(protocol, about, items, scored, problems, store, list(features), generated)
    results.write(out)
    write_report(results, out, pred)
    return results


@contextmanager
def _sole_writer(config: EvaluateConfig) -> Generator[None]:
    """Locks this process's part of the folder of results, and of the videos that it generates."""
    folders = {Path(config.out).absolute()}
    if config.generate:
        folders.add(Path(config.pred).absolute())
    with ExitStack() as stack:
        for folder in sorted(folders):
            stack.enter_context(sole_writer(folder, part=config.part))
        yield


def protocol_of(config: EvaluateConfig) -> Protocol:
    """The choices that the numbers depend on, with defaults filled in.

    Raises:
      UserError: The choices contradict each other, or masks are missing.
    """
    if config.masks and config.sam2:
        raise UserError("--masks and --sam2: give one of them")
    segmenter = layout_of(config.bench).segmenter
    if config.masks:
        segmenter = "masks"
    elif config.sam2:
        segmenter = "sam2"
    elif segmenter is None:
        raise UserError(
            f"--bench {config.bench} needs masks of the generated videos: --masks DIR, made by a "
            "segmenter, or --sam2"
        )
    fid, fvd = (None if value == "none" else value for value in (config.fid, config.fvd))
    if config.weights is None and (fid or fvd):
        raise UserError("--fid and --fvd need --weights DIR of `flashmotion convert metrics`")
    if config.weights is not None:
        fid = "pytorch-fid" if config.fid is None else fid
        fvd = "videogpt" if config.fvd is None else fvd
    return Protocol(
        config.bench,
        segmenter,
        config.method_frames,
        config.count_frame_0,
        config.average,
        config.overlaps,
        fid,
        fvd,
        config.sam2,
    )


def _score(items: Sequence[Item], scorer: Scorer, store: Store, progress: Progress | None) -> None:
    """Scores the videos of which nothing is stored.

    Raises:
      OSError: The disk or the network failed for some videos, after the others were scored.
    """
    failed: list[tuple[str, OSError]] = []
    for done, item in enumerate(items, start=1):
        if store.read(item) is None:
            try:
                found = scorer(item)
            except OSError as error:
                failed.append((item.id, error))
            else:
                store.write(item, found)
        if progress is not None:
            progress("evaluate", done, len(items))
    if failed:
        id, error = failed[0]
        raise OSError(
            f"{len(failed)} of {len(items)} videos could not be read (first: {id}: {error}); the "
            "others are scored: run again"
        ) from error


def _features(config: EvaluateConfig, protocol: Protocol) -> dict[str, Features]:
    """Name of a distance -> function that computes its features, for those that are measured."""
    presets = {"fid": protocol.fid, "fvd": protocol.fvd}
    options = FeatureOptions(presets, config.weights, config.batch_size)
    found = {
        name: metric.features(options)
        for name, metric in DISTANCES.items()
        if is_measured(metric, config.bench)
    }
    return {name: features for name, features in found.items() if features is not None}


def _file(features: Features) -> Path | None:
    """The file of weights that features are computed with, if there is one."""
    return getattr(features, "file", None)


def _segmenter(config: EvaluateConfig, protocol: Protocol) -> Segmenter | None:
    if protocol.segmenter == "none":
        return None
    if protocol.segmenter == "colors":
        segmenter = sprite_colors(config.root)
    elif config.masks is not None:
        segmenter = precomputed(config.masks)
    else:
        from flashmotion_jax.evaluation.sam2 import DEFAULT, sam2

        segmenter = sam2(config.sam2 or DEFAULT, resize=protocol.resize)
    return smallest_on_top(segmenter) if protocol.overlaps == "smallest" else segmenter


def _depends(
    config: EvaluateConfig, protocol: Protocol, weights: dict[str, str]
) -> dict[str, object]:
    """What the scores of a video depend on beside the video and the files of the benchmark."""
    # Averages and the first frame that counts are applied later, when results are collected.
    names = ("bench", "segmenter", "method_frames", "overlaps", "fid", "fvd", "sam2", "resize")
    folders = {"masks": _path(config.masks), "tracks": _path(config.tracks)}
    return {
        **{name: getattr(protocol, name) for name in names},
        "weights": weights,
        **{name: path and str(path.resolve()) for name, path in folders.items()},
    }


def _generate(config: EvaluateConfig, items: Sequence[Item], progress: Progress | None) -> int:
    from flashmotion_jax.inference.pipeline import Pipeline

    adapter: Any = config.adapter
    pipeline = Pipeline.from_pretrained(config.model, adapter)
    num_frames, of_paper = config.num_frames, layout_of(config.bench).generated_frames
    if num_frames is None and config.method_frames is None and of_paper is not None:
        num_frames = min(of_paper, pipeline.sampling.num_frames)
    return generate(
        pipeline,
        items,
        Path(config.pred),
        part=config.part,
        seed=config.seed,
        method_frames=config.method_frames,
        num_frames=num_frames,
        has_adapter=config.adapter is not None,
        known_frames=config.known_frames,
        progress=progress,
    )


def _stored(store: Store, items: Sequence[Item]) -> tuple[list[tuple[Score, str]], list[Problem]]:
    """Scores with hashes of the videos, and problems, of all parts.

    Raises:
      MissingPartsError: A video has not been scored yet.
    """
    entries = [store.read(item) for item in items]
    if missing := sum(entry is None for entry in entries):
        raise MissingPartsError(
            f"this part is done; {missing} videos of other parts are still missing"
        )
    known = [entry for entry in entries if entry is not None]
    return (
        [(entry.found, entry.sha256) for entry in known if isinstance(entry.found, Score)],
        [entry.found for entry in known if isinstance(entry.found, Problem)],
    )


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
