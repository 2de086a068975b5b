"""A whole evaluation: make what is missing, score what is not scored, put the results together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tqdm import tqdm

from flashmotion_jax.evaluation.asked import with_requests
from flashmotion_jax.evaluation.benchmarks import Fault, Item, read_benchmark
from flashmotion_jax.evaluation.generate import Part, generate, of_part
from flashmotion_jax.evaluation.page import write_report
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.results import Results
from flashmotion_jax.evaluation.scoring import Score, Scorer
from flashmotion_jax.evaluation.segmenters import (
    Segmenter,
    precomputed,
    smallest_on_top,
    sprite_colors,
)
from flashmotion_jax.evaluation.store import Store
from flashmotion_jax.evaluation.tables import table_of_groups
from flashmotion_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from flashmotion_jax.evaluation.features import Extractor


def run(args: argparse.Namespace) -> int:
    """Runs `flashmotion evaluate`, see its `--help`.

    Raises:
      UserError: an argument is wrong, or no video could be scored.
    """
    protocol = protocol_of(args)
    pred, out = Path(args.pred), Path(args.out)
    if not pred.is_dir() and not args.generate:
        raise UserError(f"no folder {pred}: give that of the generated videos, or --generate")
    extractors = _extractors(args, protocol)
    benchmark = read_benchmark(args.bench, args.root)
    requested = Path(args.requested) if args.requested else None
    items = [with_requests(item, requested) for item in benchmark.items]
    part = args.part or (1, 1)
    if args.generate:
        _generate(args, items, pred, part)
    weights = {name: extractor.file.name for name, extractor in extractors.items()}
    store = Store(out / "videos", _depends(args, protocol, weights), pred)
    scorer = Scorer(
        pred,
        _segmenter(args, protocol),
        protocol.method_frames,
        Path(args.tracks) if args.tracks else None,
        extractors,
    )
    bar = tqdm(of_part(items, part), desc="evaluate", unit="video", file=sys.stderr)
    for _, item in bar:
        if store.read(item) is None:
            store.write(item, scorer(item))
    return _finish(args, protocol, weights, items, benchmark.faults, store)


def protocol_of(args: argparse.Namespace) -> Protocol:
    """The choices that the arguments make.

    Raises:
      UserError: they contradict each other, or masks are missing.
    """
    if args.masks and args.sam2:
        raise UserError("--masks and --sam2: give one of them")
    if args.masks:
        segmenter = "masks"
    elif args.sam2:
        segmenter = "sam2"
    elif args.bench == "sprites":
        segmenter = "colors"
    elif args.bench == "movebench":
        segmenter = "none"
    else:
        raise UserError(
            f"--bench {args.bench} needs masks of the generated videos: --masks DIR, made by a "
            "segmenter, or --sam2"
        )
    fid, fvd = (None if value == "none" else value for value in (args.fid, args.fvd))
    if args.weights is None and (fid or fvd):
        raise UserError("--fid and --fvd need --weights DIR of `python -m converters metrics`")
    if args.weights is not None:
        fid = fid or ("pytorch-fid" if args.fid is None else None)
        fvd = fvd or ("videogpt" if args.fvd is None else None)
    return Protocol(
        args.bench,
        cast(Any, segmenter),
        args.method_frames,
        args.count_frame_0,
        args.average,
        args.overlaps,
        fid,
        fvd,
        args.sam2,
    )


def _extractors(args: argparse.Namespace, protocol: Protocol) -> dict[str, Extractor]:
    presets = {"fid": protocol.fid, "fvd": protocol.fvd}
    if not any(presets.values()):
        return {}
    # jax is imported only where a network computes.
    from flashmotion_jax.evaluation.features import Extractor

    return {
        name: Extractor(preset, args.weights, args.batch_size)
        for name, preset in presets.items()
        if preset is not None
    }


def _segmenter(args: argparse.Namespace, protocol: Protocol) -> Segmenter | None:
    if protocol.segmenter == "none":
        return None
    if protocol.segmenter == "colors":
        segmenter = sprite_colors(args.root)
    elif protocol.segmenter == "masks":
        segmenter = precomputed(args.masks)
    else:
        from flashmotion_jax.evaluation.sam2 import sam2

        segmenter = sam2(args.sam2)
    return smallest_on_top(segmenter) if protocol.overlaps == "smallest" else segmenter


def _depends(
    args: argparse.Namespace, protocol: Protocol, weights: dict[str, str]
) -> dict[str, Any]:
    """What the scores of a video depend on beside the video and the benchmark's files."""
    names = ("bench", "segmenter", "method_frames", "overlaps", "fid", "fvd", "sam2")
    return {
        **{name: getattr(protocol, name) for name in names},
        "weights": weights,
        "masks": args.masks and str(Path(args.masks).resolve()),
        "tracks": args.tracks and str(Path(args.tracks).resolve()),
    }


def _generate(args: argparse.Namespace, items: Sequence[Item], pred: Path, part: Part) -> None:
    from flashmotion_jax.inference.pipeline import Pipeline

    adapter = None if args.adapter == "none" else args.adapter
    pipeline = Pipeline.from_pretrained(args.model, adapter)
    total = len(of_part(items, part))
    with tqdm(total=total, desc="generate", unit="video", file=sys.stderr) as bar:
        made = generate(
            pipeline,
            items,
            pred,
            part=part,
            seed=args.seed,
            method_frames=args.method_frames,
            has_adapter=adapter is not None,
            progress=lambda done, total: bar.update(1),
        )
    print(f"made {made} videos in {pred}, {total - made} were there")


def _finish(
    args: argparse.Namespace,
    protocol: Protocol,
    weights: dict[str, str],
    items: Sequence[Item],
    unusable: Sequence[Fault],
    store: Store,
) -> int:
    """Writes the results if every video has been looked at; tells how many are missing if not."""
    entries = [store.read(item) for item in items]
    if missing := sum(entry is None for entry in entries):
        print(f"this part is done; {missing} videos of other parts are still missing")
        return 0
    scored: list[tuple[Score, str]] = []
    faults = list(unusable)
    for entry in entries:
        if entry is not None and entry.score is not None:
            scored.append((entry.score, entry.sha256))
        elif entry is not None and entry.fault is not None:
            faults.append(entry.fault)
    for fault in faults:
        print(f"not scored: {fault.id}: {fault.reason}")
    if not scored:
        raise UserError(f"none of {len(faults)} videos could be scored, see above")
    folders = {name: getattr(args, name) for name in ("root", "pred", "masks", "tracks")}
    results = Results.of(protocol, {"folders": folders, "weights": weights}, scored, faults, store)
    results.write(Path(args.out))
    write_report(results, items, Path(args.out), Path(args.pred))
    print(table_of_groups(results.groups).to_markdown())
    print("".join(f"{name}: {value}\n" for name, value in vars(protocol).items()))
    print(
        f"wrote {args.out}/result.json, scores.npz, report.md and report.html: {len(scored)} "
        f"videos, {len(faults)} not scored"
    )
    return 0
