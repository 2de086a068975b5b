r"""Measures what weights in 8 bits cost a Sprites model: box IoU, and PSNR to its own videos.

    python tools/measure_eight_bits.py [MODEL] [--adapter resnet] [--per-group 4] [--limit 1]

All dtypes generate the held-out clips from the same images, captions, boxes and noise. The exit
status is 1 if the box IoU in 8 bits differs by more than --limit points from that in bfloat16.
float8 is computed as on a GPU, slowly, where a device has no matmul for it.

    python tools/measure_eight_bits.py --layer

instead measures one block of the published width with random weights and inputs: the relative
error of every kind of layer, and of the whole block, against float32.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashmotion_jax import Pipeline
from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DiTConfig
from flashmotion_jax.data.sprites import Clip, test_groups
from flashmotion_jax.evaluation.benchmarks.sprites import clip_frames
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.scoring import score_frames, totals_of
from flashmotion_jax.inference.model_store import Stored
from flashmotion_jax.inference.pipeline import shipped_model
from flashmotion_jax.models import layers
from flashmotion_jax.models.eight_bits import FORMATS, EightBitLinear, quantize
from flashmotion_jax.runtime.errors import exit_status

PROTOCOL = Protocol("sprites", "colors")
BATCH = 8


def main() -> int:
    """Runs the command line and returns its exit status."""
    return exit_status("measure_eight_bits", run)


def run() -> int:
    """Prints a line for each dtype; returns 1 if the gate fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, help="default: the shipped model")
    parser.add_argument("--adapter", default="resnet", choices=("resnet", "controlnet"))
    parser.add_argument("--per-group", type=int, default=4, help="clips of each group (default: 4)")
    parser.add_argument("--limit", type=float, default=1.0, help="points of IoU (default: 1)")
    parser.add_argument("--layer", action="store_true", help="measure a block of the full width")
    args = parser.parse_args()
    if args.layer:
        return measure_block()
    clips = [clip for group in test_groups(args.per_group).values() for clip in group]
    model = args.model or shipped_model()
    videos = {
        weights: generate(model, args.adapter, weights, clips)
        for weights in ("float32", "bfloat16", *FORMATS)
    }
    reference, failed = box_iou(videos["bfloat16"], clips), []
    for weights, found in videos.items():
        points = 100 * (box_iou(found, clips) - reference)
        print(
            f"{weights:9} box IoU {reference + points / 100:.4f} ({points:+.2f} points), PSNR to "
            f"bfloat16 {psnr(found, videos['bfloat16']):.1f} dB, {len(clips)} clips"
        )
        if weights in FORMATS and abs(points) > args.limit:
            failed.append(weights)
    print(f"more than {args.limit:g} points: {', '.join(failed)}" if failed else "within the limit")
    return 1 if failed else 0


def generate(model: Path, adapter: str, weights: str, clips: list[Clip]) -> np.ndarray:
    """Videos of all clips; matmuls that are not in 8 bits are in bfloat16, or all in float32."""
    dtype = "float32" if weights == "float32" else "bfloat16"
    checkpoint = components.open_checkpoint(model)
    kinds = {name: name for name in ("dit", "vae", "text_encoder")}
    kinds["adapter"] = f"adapters/{adapter}"
    # Not `from_pretrained`, which refuses float8 on a CPU.
    pipeline = Pipeline(
        {name: Stored(model, kind, dtype, weights) for name, kind in kinds.items()},
        tokenizer=checkpoint.tokenizer,
        dit_config=checkpoint.config.dit,
        vae_config=checkpoint.config.vae,
        sampling=checkpoint.config.sampling,
    )
    videos = []
    for start in range(0, len(clips), BATCH):
        some = clips[start : start + BATCH]
        videos.append(
            pipeline(
                [clip.video[0] for clip in some],
                [clip.caption for clip in some],
                [clip.trajectory for clip in some],
                seed=start,
            )
        )
        print(f"{weights}: {start + len(some)} of {len(clips)}", file=sys.stderr, flush=True)
    return np.concatenate(videos)


def box_iou(videos: np.ndarray, clips: list[Clip]) -> float:
    """Mean box IoU, weighted as by the protocol."""
    totals = np.array(
        [
            totals_of(score_frames(clip_frames(video, clip), "sprites"), PROTOCOL)["box_iou"]
            for video, clip in zip(videos, clips, strict=True)
        ]
    )
    return float(totals[:, 0].sum() / totals[:, 1].sum())


def psnr(videos: np.ndarray, others: np.ndarray) -> float:
    """PSNR in dB of all frames but the first, which is given."""
    error = np.mean((videos[:, 1:].astype(np.float64) - others[:, 1:]) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def measure_block(tokens: int = 256) -> int:
    """Prints the errors of a block's layers against float32, in bfloat16 and in 8 bits."""
    from flashmotion_jax.models.dit import Block
    from flashmotion_jax.models.rope import rope_table

    config = DiTConfig()
    build = functools.partial(Block, config, rngs=nnx.Rngs(0))
    exact = build(policy=layers.FLOAT32)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, 1, tokens, config.dim)), jnp.float32)
    modulation = jnp.asarray(0.1 * rng.standard_normal((1, 1, 6, config.dim)), jnp.float32)
    text = jnp.asarray(rng.standard_normal((1, 64, config.dim)), jnp.float32)
    rope = rope_table((1, 16, tokens // 16), config.head_dim)

    def outputs(block: Any) -> dict[str, jax.Array]:
        keys_values = block.cross_attn.keys_values(text)
        hidden = jax.nn.gelu(exact.ffn.up(x), approximate=True)
        return {
            "self_attn.q": block.self_attn.q(x),
            "cross_attn.o": block.cross_attn.o(x),
            "ffn.up": block.ffn.up(x),
            "ffn.down": block.ffn.down(hidden),
            "block": block(x, modulation, keys_values, rope) - x,
        }

    expected = outputs(exact)
    for weights in ("bfloat16", *FORMATS):
        block = build(policy=layers.Policy(compute="bfloat16", params=weights))
        copy_weights(exact, block)
        found = outputs(block)
        errors = ", ".join(
            f"{name} {relative(found[name], value):.4f}" for name, value in expected.items()
        )
        print(f"{weights:9} {errors}")
    return 0


def copy_weights(source: nnx.Module, target: nnx.Module) -> None:
    """Gives a block the weights of another, rounded."""
    theirs = components.flat_parameters(source)
    for path, layer in nnx.iter_modules(target):
        if isinstance(layer, EightBitLinear):
            kernel = theirs[".".join(map(str, (*path, "kernel")))].get_value()
            to = next(one for one in FORMATS.values() if one.dtype == layer.weight.dtype)
            values, scale = quantize(kernel.T, to)
            layer.weight.set_value(values)
            layer.weight_scale.set_value(scale[:, 0])
    for name, variable in components.flat_parameters(target).items():
        if name in theirs:
            variable.set_value(theirs[name].get_value().astype(variable.dtype))


def relative(found: jax.Array, expected: jax.Array) -> float:
    """Norm of the error over the norm of the value."""
    error = jnp.linalg.norm(found.astype(jnp.float32) - expected)
    return float(error / jnp.linalg.norm(expected))


if __name__ == "__main__":
    sys.exit(main())
