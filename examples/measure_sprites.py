r"""Measures Sprites systems on the held-out clips, side by side: IoU, sharpness, distances.

Each system is NAME=KIND:RUN[,RUN...], where several runs are training seeds of one system. KIND is
an adapter (resnet, controlnet), none, or a reference: autoencoder (the real clips through it) or
held (their first frames). GENERATOR+RUN takes only the adapter from RUN. All systems get the same
images, captions, boxes and noise. Measurements are kept in OUT, so more systems can be added later.
--against NAME adds a table of differences from that system, clip by clip, whose intervals are
narrower: a difference is significant if its interval excludes 0.

    python examples/measure_sprites.py runs/sprites/measured \
      slow=resnet:runs/sprites/stage1_box_resnet/model \
      "slow adapter=resnet:runs/sprites/stage2/model+runs/sprites/stage1_box_resnet/model" \
      full=resnet:runs/sprites/stage3_resnet/model --against full
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from tqdm import tqdm

from flashmotion_jax import Pipeline
from flashmotion_jax.checkpoints import components
from flashmotion_jax.data.sprites import Clip, test_groups
from flashmotion_jax.evaluation.benchmarks.sprites import clip_frames
from flashmotion_jax.evaluation.bootstrap import Interval, interval, paired_difference
from flashmotion_jax.evaluation.features.latents import latent_features
from flashmotion_jax.evaluation.features.random_network import RandomNetwork
from flashmotion_jax.evaluation.frechet import frechet_of_pairs
from flashmotion_jax.evaluation.metrics import VIDEO_METRICS
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.reports.json_tables import to_json, to_markdown
from flashmotion_jax.evaluation.scoring import score_frames, totals_of
from flashmotion_jax.media.images import to_float, to_uint8
from flashmotion_jax.models.adapters import Adapter
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError, exit_status
from flashmotion_jax.training.samples import reconstruct

BATCH = 16
KINDS = ("resnet", "controlnet", "none", "autoencoder", "held")
#: Resamples of a distance, each of which takes an eigendecomposition.
RESAMPLES = 200
DISTANCES = ("video_distance", "image_distance", "latent_distance")
#: Frame 0, which is given, does not count.
PROTOCOL = Protocol("sprites", "colors")
METRICS = (
    *("mask_iou", "box_iou", "centroid_error", "lost"),
    *("sharpness", "motion", "psnr", "background_psnr"),
)


def main() -> int:
    """Runs the command line and returns its exit status."""
    return exit_status("measure_sprites", run)


def run() -> int:
    """Prints the tables, and writes `table` and `differences` to OUT as .md and .json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder of the measurements and tables")
    parser.add_argument("systems", nargs="+", metavar="NAME=KIND:RUN[,RUN...]")
    parser.add_argument(
        "--per-group", type=int, default=16, help="clips of each of the six groups (default: 16)"
    )
    parser.add_argument(
        "--against", metavar="NAME", help="also show the differences from this system"
    )
    args = parser.parse_args()
    wanted = dict(parsed(system) for system in args.systems)
    if args.against and args.against not in wanted:
        raise UserError(f"--against {args.against!r}; expected one of {', '.join(wanted)}")
    clips = [clip for group in test_groups(args.per_group).values() for clip in group]
    args.out.mkdir(parents=True, exist_ok=True)
    systems = {
        name: System([dict(np.load(measured(args.out, kind, run, clips))) for run in runs])
        for name, (kind, runs) in wanted.items()
    }
    tables = {"table": {name: system.numbers() for name, system in systems.items()}}
    if args.against:
        other = systems.pop(args.against)
        tables["differences"] = {
            f"{name} - {args.against}": system.minus(other) for name, system in systems.items()
        }
    for table, rows in tables.items():
        for suffix, text in (("md", to_markdown(rows)), ("json", to_json(rows))):
            with replacing(args.out / f"{table}.{suffix}") as scratch:
                scratch.write_text(text)
        print(to_markdown(rows))
    written = " and ".join(f"{args.out}/{table}.md" for table in tables)
    print(f"wrote {written} (and .json): {len(clips)} clips, {len(wanted)} systems")
    return 0


def parsed(system: str) -> tuple[str, tuple[str, list[str]]]:
    """Parses a system of the command line into its name, kind and runs."""
    name, _, rest = system.partition("=")
    kind, _, runs = rest.partition(":")
    if kind not in KINDS or not runs:
        raise UserError(
            f"system {system!r}; expected NAME=KIND:RUN[,RUN...] of kind {', '.join(KINDS)}"
        )
    return name, (kind, runs.split(","))


def measured(out: Path, kind: str, run: str, clips: list[Clip]) -> Path:
    """Returns the file of a run's measurements, which is created if it does not exist."""
    generator, _, source = run.partition("+")
    model, source = Path(generator), Path(source or generator)
    adapter = kind if kind in ("resnet", "controlnet") else None
    parts = [(model, "vae"), (model, "dit")] + [(source, f"adapters/{adapter}")] * bool(adapter)
    keys = [components.read_component(*part).key[:8] for part in parts]
    file = out / f"{kind}-{'-'.join(keys)}-{len(clips)}-totals.npz"
    if not file.exists():
        real = np.stack([clip.video for clip in clips])
        if kind == "autoencoder":
            videos = reconstructed(model, real)
        elif kind == "held":
            videos = np.repeat(real[:, :1], real.shape[1], axis=1)
        else:
            videos = np.stack(list(generate(model, source, adapter, clips)))
        arrays = pairs_of_features(model, videos, real) | totals(videos, clips)
        with replacing(file) as scratch, scratch.open("wb") as opened:
            np.savez(opened, **cast(Any, arrays))
    return file


def reconstructed(model: Path, real: np.ndarray) -> np.ndarray:
    """Passes videos, uint8 `[N, F, H, W, 3]`, through the autoencoder."""
    vae = components.load_component(model, "vae", "float32")
    return np.stack([to_uint8(np.asarray(reconstruct(vae, video[None])[0])) for video in real])


def generate(
    model: Path, source: Path, kind: str | None, clips: list[Clip]
) -> Iterator[np.ndarray]:
    """Generates a video from the first frame, caption and boxes of each clip; clip i has seed i."""
    adapter = components.load_component(source, f"adapters/{kind}", "float32") if kind else None
    pipeline = Pipeline.from_pretrained(model, cast(Adapter | None, adapter))
    bar = tqdm(total=len(clips), desc=f"{source.parent.name:28}", unit="clip", file=sys.stderr)
    for start in range(0, len(clips), BATCH):
        some = clips[start : start + BATCH]
        yield from pipeline(
            [clip.video[0] for clip in some],
            [clip.caption for clip in some],
            [clip.trajectory for clip in some] if kind else None,
            seed=start,
        )
        bar.update(len(some))
    bar.close()


def totals(videos: np.ndarray, clips: list[Clip]) -> dict[str, np.ndarray]:
    """Name of a metric -> totals `[N, 2]`, a row for each clip; see `VideoMetric.total`."""
    found = [
        totals_of(score_frames(clip_frames(video, clip), "sprites"), PROTOCOL)
        for video, clip in zip(videos, clips, strict=True)
    ]
    arrays = {name: np.array([one.get(name, (0, np.nan)) for one in found]) for name in METRICS}
    # In pixels: all clips have the same size.
    arrays["centroid_error"][:, 0] *= np.hypot(*videos.shape[2:4])
    return arrays


def pairs_of_features(model: Path, videos: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    """Features `[N, 2, ..., D]` of generated and real videos, of their frames and their latents."""
    network = RandomNetwork()
    vae = components.load_component(model, "vae", "float32")
    encode = jax.jit(lambda vae, video: vae.encode(video))

    def of_frames(some: np.ndarray) -> np.ndarray:
        frames = some[:, 1::4]
        features = network.image_features(frames.reshape(-1, *frames.shape[2:]))
        return features.reshape(*frames.shape[:2], -1)

    def of_latents(some: np.ndarray) -> np.ndarray:
        return latent_features(np.stack([encode(vae, to_float(video)[None])[0] for video in some]))

    return {
        name: np.stack([features(videos), features(real)], axis=1)
        for name, features in (
            ("video_distance", network.video_features),
            ("image_distance", of_frames),
            ("latent_distance", of_latents),
        )
    }


class System:
    """The measurements of a system's training seeds, pooled clip by clip.

    Args:
      seeds: What `measured` keeps, for each seed.
    """

    def __init__(self, seeds: list[dict[str, np.ndarray]]):
        self.totals = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in METRICS}
        self.features = {
            name: np.concatenate([self._rows(seed[name]) for seed in seeds], axis=2)
            for name in DISTANCES
        }

    def _rows(self, pairs: np.ndarray) -> np.ndarray:
        return pairs.reshape(len(pairs), 2, -1, pairs.shape[-1])

    def numbers(self) -> dict[str, Interval]:
        """Estimates and intervals over clips."""
        return {
            name: interval(totals, VIDEO_METRICS[name].statistic(PROTOCOL.average))
            for name, totals in self.totals.items()
        } | {
            name: interval(pairs, frechet_of_pairs, resamples=RESAMPLES)
            for name, pairs in self.features.items()
        }

    def minus(self, other: System) -> dict[str, Interval]:
        """The differences from another system on the same clips."""

        def difference(name: str, drawn: np.ndarray) -> float:
            rows = drawn.astype(int)  # the same clips of both, so that their difficulty cancels
            ours, theirs = (frechet_of_pairs(s.features[name][rows]) for s in (self, other))
            return ours - theirs

        return {
            name: paired_difference(
                totals, other.totals[name], VIDEO_METRICS[name].statistic(PROTOCOL.average)
            )
            for name, totals in self.totals.items()
        } | {
            name: interval(np.arange(len(pairs)), partial(difference, name), resamples=RESAMPLES)
            for name, pairs in self.features.items()
        }


if __name__ == "__main__":
    sys.exit(main())
