r"""Measures Sprites systems on the held-out clips, side by side: IoU, sharpness, distances.

Each system is NAME=KIND:RUN[,RUN...], several runs being its training seeds. KIND is an adapter
(resnet, controlnet), none, or a reference: autoencoder (the real clips through it), held (their
first frames). GENERATOR+RUN takes the adapter alone from RUN. All systems get the same images,
captions, boxes and noise. What is measured is kept in OUT, so that more can be added later.

    python examples/measure_sprites.py runs/sprites/measured \
      slow=resnet:runs/sprites/stage1_box_resnet/model \
      "slow adapter=resnet:runs/sprites/stage2/model+runs/sprites/stage1_box_resnet/model" \
      full=resnet:runs/sprites/stage3_resnet/model
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from tqdm import tqdm

from flashmotion_jax import Pipeline
from flashmotion_jax.commands import exit_status
from flashmotion_jax.data.sprites import Clip, test_groups
from flashmotion_jax.data.video import to_float, to_uint8
from flashmotion_jax.evaluation.bootstrap import Interval, interval
from flashmotion_jax.evaluation.frechet import frechet_of_pairs, latent_features
from flashmotion_jax.evaluation.networks import FixedNetwork
from flashmotion_jax.evaluation.report import to_json, to_markdown
from flashmotion_jax.evaluation.sprites import Measures, measure, summarise
from flashmotion_jax.files import replacing
from flashmotion_jax.models import checkpoint
from flashmotion_jax.models.adapters import Adapter
from flashmotion_jax.training.autoencoder import reconstruct

BATCH = 16
KINDS = ("resnet", "controlnet", "none", "autoencoder", "held")
#: Of the bootstrap of a distance, which costs an eigen-decomposition each.
RESAMPLES = 200


def main() -> int:
    """Runs the command line; its exit status, 2 for bad input."""
    return exit_status("measure_sprites", run)


def run() -> int:
    """Prints a table, and writes it to OUT/table.md and OUT/table.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder of what is measured")
    parser.add_argument("systems", nargs="+", metavar="NAME=KIND:RUN[,RUN...]")
    parser.add_argument("--per-group", type=int, default=16, help="clips of each of six groups")
    args = parser.parse_args()
    clips = [clip for group in test_groups(args.per_group).values() for clip in group]
    args.out.mkdir(parents=True, exist_ok=True)
    rows = {}
    for system in args.systems:
        name, _, rest = system.partition("=")
        kind, _, runs = rest.partition(":")
        if kind not in KINDS or not runs:
            raise ValueError(
                f"system {system!r}; expected NAME=KIND:RUN[,RUN...] of kind {', '.join(KINDS)}"
            )
        files = [measured(args.out, kind, run, clips) for run in runs.split(",")]
        rows[name] = figures([dict(np.load(file)) for file in files])
    for file, text in (("table.md", to_markdown(rows)), ("table.json", to_json(rows))):
        with replacing(args.out / file) as scratch:
            scratch.write_text(text)
    print(to_markdown(rows))
    print(f"wrote {args.out}/table.md and table.json: {len(clips)} clips, {len(rows)} systems")
    return 0


def measured(out: Path, kind: str, run: str, clips: list[Clip]) -> Path:
    """The file of what a run measures, made if it is not there."""
    generator, _, source = run.partition("+")
    model, source = Path(generator), Path(source or generator)
    adapter = kind if kind in ("resnet", "controlnet") else None
    parts = [(model, "vae"), (model, "dit")] + [(source, f"adapters/{adapter}")] * bool(adapter)
    keys = [checkpoint.read_component(*part).key[:8] for part in parts]
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
    vae = checkpoint.load_component(model, "vae", "float32")
    return np.stack([to_uint8(np.asarray(reconstruct(vae, video[None])[0])) for video in real])


def generate(
    model: Path, source: Path, kind: str | None, clips: list[Clip]
) -> Iterator[np.ndarray]:
    """A video of each clip's first frame, caption and boxes; clip i has the noise of seed i."""
    adapter = checkpoint.load_component(source, f"adapters/{kind}", "float32") if kind else None
    pipeline = Pipeline.load(model, cast(Adapter | None, adapter))
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
    vae = checkpoint.load_component(model, "vae", "float32")
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


def figures(seeds: list[dict[str, np.ndarray]]) -> dict[str, Interval]:
    """Estimates and intervals over clips; training seeds are averaged within each clip."""
    means = {field: np.mean([seed[field] for seed in seeds], axis=0) for field in Measures._fields}
    per_clip = [Measures(*values) for values in zip(*means.values(), strict=True)]
    distances = {}
    for name in ("video_distance", "image_distance", "latent_distance"):
        pairs = [seed[name].reshape(len(per_clip), 2, -1, seed[name].shape[-1]) for seed in seeds]
        pooled = np.concatenate(pairs, axis=2)
        distances[name] = interval(pooled, frechet_of_pairs, resamples=RESAMPLES)
    return summarise(per_clip) | distances


if __name__ == "__main__":
    sys.exit(main())
