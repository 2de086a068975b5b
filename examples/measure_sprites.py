r"""Measures Sprites systems on the held-out clips, side by side: IoU, sharpness, distances.

Each system is NAME=KIND:RUN[,RUN...], several runs being its training seeds. KIND is an adapter
(resnet, controlnet), none, or a reference: autoencoder (the real clips through it), held (their
first frames). GENERATOR+RUN takes the adapter alone from RUN. All systems get the same images,
captions, boxes and noise. What is measured is kept in OUT, so that more can be added later.
--against NAME adds a table of differences from that system, clip by clip, whose intervals are
narrower: what excludes 0 there is told apart.

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
from flashmotion_jax.evaluation.bootstrap import Interval, interval
from flashmotion_jax.evaluation.frechet import frechet_of_pairs, latent_features
from flashmotion_jax.evaluation.networks import FixedNetwork
from flashmotion_jax.evaluation.report import to_json, to_markdown
from flashmotion_jax.evaluation.sprites import Measures, compare, measure, summarise
from flashmotion_jax.media.images import to_float, to_uint8
from flashmotion_jax.models.adapters import Adapter
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError, exit_status
from flashmotion_jax.training.samples import reconstruct

BATCH = 16
KINDS = ("resnet", "controlnet", "none", "autoencoder", "held")
#: Of the bootstrap of a distance, which costs an eigen-decomposition each.
RESAMPLES = 200
DISTANCES = ("video_distance", "image_distance", "latent_distance")


def main() -> int:
    """Runs the command line; its exit status, 2 for bad input."""
    return exit_status("measure_sprites", run)


def run() -> int:
    """Prints tables, and writes them to OUT: `table` and `differences`, .md and .json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder of what is measured")
    parser.add_argument("systems", nargs="+", metavar="NAME=KIND:RUN[,RUN...]")
    parser.add_argument("--per-group", type=int, default=16, help="clips of each of six groups")
    parser.add_argument("--against", metavar="NAME", help="also the differences from this system")
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
    tables = {"table": {name: system.figures() for name, system in systems.items()}}
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
    """The name, the kind and the runs of a system on the command line."""
    name, _, rest = system.partition("=")
    kind, _, runs = rest.partition(":")
    if kind not in KINDS or not runs:
        raise UserError(
            f"system {system!r}; expected NAME=KIND:RUN[,RUN...] of kind {', '.join(KINDS)}"
        )
    return name, (kind, runs.split(","))


def measured(out: Path, kind: str, run: str, clips: list[Clip]) -> Path:
    """The file of what a run measures, made if it is not there."""
    generator, _, source = run.partition("+")
    model, source = Path(generator), Path(source or generator)
    adapter = kind if kind in ("resnet", "controlnet") else None
    parts = [(model, "vae"), (model, "dit")] + [(source, f"adapters/{adapter}")] * bool(adapter)
    keys = [components.read_component(*part).key[:8] for part in parts]
    file = out / f"{kind}-{'-'.join(keys)}-{len(clips)}.npz"
    if not file.exists():
        real = np.stack([clip.video for clip in clips])
        if kind == "autoencoder":
            videos = reconstructed(model, real)
        elif kind == "held":
            videos = np.repeat(real[:, :1], real.shape[1], axis=1)
        else:
            videos = np.stack(list(generate(model, source, adapter, clips)))
        arrays = pairs_of_features(model, videos, real) | measures(videos, clips)
        with replacing(file) as scratch, scratch.open("wb") as opened:
            np.savez(opened, **cast(Any, arrays))
    return file


def reconstructed(model: Path, real: np.ndarray) -> np.ndarray:
    """What the autoencoder makes of videos uint8 `[N, F, H, W, 3]`."""
    vae = components.load_component(model, "vae", "float32")
    return np.stack([to_uint8(np.asarray(reconstruct(vae, video[None])[0])) for video in real])


def generate(
    model: Path, source: Path, kind: str | None, clips: list[Clip]
) -> Iterator[np.ndarray]:
    """A video of each clip's first frame, caption and boxes; clip i has the noise of seed i."""
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


def measures(videos: np.ndarray, clips: list[Clip]) -> dict[str, np.ndarray]:
    """Field of `Measures` to its values, one a clip."""
    found = [measure(video, clip) for video, clip in zip(videos, clips, strict=True)]
    return {field: np.array([getattr(m, field) for m in found]) for field in Measures._fields}


def pairs_of_features(model: Path, videos: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    """Features of generated and real videos `[N, 2, D]`, of their frames and of their latents."""
    network = FixedNetwork()
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
    """What its training seeds measured, pooled clip by clip.

    Args:
      seeds: of each seed, what `measured` keeps.
    """

    def __init__(self, seeds: list[dict[str, np.ndarray]]):
        means = [np.mean([seed[field] for seed in seeds], axis=0) for field in Measures._fields]
        self.clips = [Measures(*values) for values in zip(*means, strict=True)]
        self.features = {
            name: np.concatenate([self._rows(seed[name]) for seed in seeds], axis=2)
            for name in DISTANCES
        }

    def _rows(self, pairs: np.ndarray) -> np.ndarray:
        return pairs.reshape(len(self.clips), 2, -1, pairs.shape[-1])

    def figures(self) -> dict[str, Interval]:
        """Estimates and intervals over clips."""
        return summarise(self.clips) | {
            name: interval(pairs, frechet_of_pairs, resamples=RESAMPLES)
            for name, pairs in self.features.items()
        }

    def minus(self, other: System) -> dict[str, Interval]:
        """The differences from another system on the same clips."""

        def difference(name: str, drawn: np.ndarray) -> float:
            rows = drawn.astype(int)  # of both: what makes a clip hard cancels
            ours, theirs = (frechet_of_pairs(s.features[name][rows]) for s in (self, other))
            return ours - theirs

        return compare(self.clips, other.clips) | {
            name: interval(
                np.arange(len(self.clips)), partial(difference, name), resamples=RESAMPLES
            )
            for name in DISTANCES
        }


if __name__ == "__main__":
    sys.exit(main())
