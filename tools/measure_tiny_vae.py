"""Compares a tiny autoencoder of Sprites with the VAE: time, pixels, latents of maps.

    JAX_PLATFORMS=cpu PYTHONPATH=. python tools/measure_tiny_vae.py MODEL [SHEET.png]

SHEET.png gets held-out clips in threes: real, decoded by the VAE, and by the tiny decoder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from examples.measure_sprites import totals
from flashmotion_jax.checkpoints import components
from flashmotion_jax.data.sprites import Clip, test_groups
from flashmotion_jax.data.sprites.clips import draw_maps
from flashmotion_jax.media.images import to_float, to_uint8

PER_GROUP, REPEAT = 4, 5
METRICS = ("psnr", "sharpness", "box_iou", "mask_iou")
#: Maps as models are given them, uint8 [F, H, W, 3].
MAPS: dict[str, Callable[[Clip], np.ndarray]] = {
    "masks": lambda clip: draw_maps(clip)[0],
    "boxes": lambda clip: draw_maps(clip)[1],
}
#: Frames of a contact sheet.
SHOWN = [0, 4, 8, 12, 16]


def main() -> None:
    """Prints the tables."""
    model = Path(sys.argv[1])
    vae, tiny = (components.load_component(model, kind, "float32") for kind in ("vae", "tiny_vae"))
    clips = [clip for group in test_groups(PER_GROUP).values() for clip in group]
    encode = {"VAE": jax.jit(lambda x: vae.encode(x, 4)), "tiny": jax.jit(tiny.encode)}
    decode = {"VAE": jax.jit(vae.decode), "tiny": jax.jit(tiny.decode)}
    latents = [encode["VAE"](_float(clip.video)) for clip in clips]
    videos = {
        name: [to_uint8(np.asarray(run(z)[0])) for z in latents] for name, run in decode.items()
    }
    for name, decoded in videos.items():
        found = totals(np.stack(decoded), clips)
        print(f"{name} decodes, {len(clips)} clips:", {key: _mean(found[key]) for key in METRICS})
    for name, runs, argument in (
        ("encode", encode, _float(clips[0].video)),
        ("decode", decode, latents[0]),
    ):
        seconds = _seconds(runs, argument)
        ratio = seconds["VAE"] / seconds["tiny"]
        print(f"{name}, CPU s a clip: {seconds}, {ratio:.1f} times")
    for name in ("video", *MAPS):
        print(f"latents of {name}:", _latents(clips, name, encode, decode["VAE"]))
    if len(sys.argv) > 2:
        _sheet(clips, videos).save(sys.argv[2])


def _float(video: np.ndarray) -> jax.Array:
    return to_float(jnp.asarray(video)[None])


def _mean(totals: np.ndarray) -> float:
    return round(float(np.nanmean(totals[:, 0] / totals[:, 1])), 3)


def _seconds(runs: dict[str, Callable[..., Any]], argument: Any) -> dict[str, float]:
    """Least CPU seconds of each function, run alternately after they are compiled."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + REPEAT):
        for name, run in runs.items():
            start = time.process_time()
            jax.block_until_ready(run(argument))
            seconds[name].append(time.process_time() - start)
    return {name: round(min(values[1:]), 4) for name, values in seconds.items()}


def _latents(
    clips: list[Clip],
    name: str,
    encode: dict[str, Callable[..., jax.Array]],
    decode: Callable[..., jax.Array],
) -> dict[str, float]:
    """Relative error of the tiny encoder's latents, and how far it moves what they decode to."""
    errors, norms, overlaps = [], [], {"VAE": [], "tiny": []}
    for clip in clips:
        video = _float(clip.video if name == "video" else MAPS[name](clip))
        latents = {encoder: run(video) for encoder, run in encode.items()}
        errors.append(float(jnp.sum((latents["tiny"] - latents["VAE"]) ** 2)))
        norms.append(float(jnp.sum(latents["VAE"] ** 2)))
        if name == "video":
            continue
        drawn = np.asarray(video).max(-1) > 0  # maps are black outside of objects
        for encoder, z in latents.items():
            found = np.asarray(decode(z)).max(-1) > 0
            overlaps[encoder].append((drawn & found).sum() / (drawn | found).sum())
    result = {"relative L2 error": round(float(np.sqrt(np.sum(errors) / np.sum(norms))), 3)}
    for encoder, values in overlaps.items():
        if values:
            result[f"IoU of what the VAE decodes, {encoder} encoder"] = round(
                float(np.mean(values)), 3
            )
    return result


def _sheet(clips: list[Clip], videos: dict[str, list[np.ndarray]]) -> Image.Image:
    rows = []
    for index in range(0, len(clips), 2):
        shown = (clips[index].video, videos["VAE"][index], videos["tiny"][index])
        rows.append(np.concatenate([np.concatenate(list(one[SHOWN]), axis=1) for one in shown]))
    halves = len(rows) // 2
    columns = [np.concatenate(rows[:halves]), np.concatenate(rows[halves : 2 * halves])]
    return Image.fromarray(np.concatenate(columns, axis=1).repeat(2, 0).repeat(2, 1))


if __name__ == "__main__":
    main()
