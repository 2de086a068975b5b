"""A miniature of the three training stages: data, cache, training, sampling, export.

Converts a checkpoint with random weights in Wan2.2's file layout; writes and caches a MagicData
folder of moving squares; trains the ResNet adapter on masks, then on boxes; distills the generator
to four steps; and fine-tunes the adapter on it. Every command is printed as you would type it, with
the paper's configurations and the overrides that make them small. A few steps teach a random model
nothing, but show how the parts fit together, in about three minutes on two cores.

    python examples/train_small.py [FOLDER]
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from flashmotion_jax import Keyframe, TrackedObject, Trajectory, write_video
from flashmotion_jax.trajectory import Canvas
from flashmotion_jax.trajectory.render import render
from sample_small import run
from small_checkpoint import write_small_checkpoint

NUM_FRAMES, HEIGHT, WIDTH = 9, 64, 96
STEPS = 10
FLASHMOTION = (sys.executable, "-m", "flashmotion_jax.cli")
CONVERTERS = (sys.executable, "-m", "converters")


def main() -> int:
    """Writes everything to the given folder, by default `outputs/train`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/train")
    # Compilation takes most of the time, and several commands run the same programs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    print(f"writing a small checkpoint and 8 videos to {folder}")
    write_small_checkpoint(folder / "Wan2.2-TI2V-5B", torch_files=False)
    write_magicdata(folder / "MagicData")
    wan22 = folder / "wan22"
    source = folder / "Wan2.2-TI2V-5B"
    run([*CONVERTERS, "wan22", source, wan22, "--dtype", "float32", "--overwrite"])
    cache = settings(data_root=folder / "MagicData", model=wan22, output=folder / "cache")
    size = settings(num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH)
    run([*FLASHMOTION, "cache", "--config", "configs/cache_magicdata.py", *cache, *size])

    train(folder, "stage1_mask", {"adapter.width": 32})
    start = folder / "stage1_mask/model"
    train(folder, "stage1_box", {"adapter.width": 32, "start_from": start})
    train(folder, "stage2", {"matching.student_every": 2})
    changes: dict[str, object] = {
        "fast_generator": folder / "stage2/model",
        "slow_adapter": folder / "stage1_box/model",
        "adapter_every": 2,
        "discriminator.block_indices": "(0,1)",
        "discriminator.dim": 32,
    }
    train(folder, "stage3", changes)

    model = folder / "stage3/model"
    sample = settings_of_sample(folder)
    run([*FLASHMOTION, "sample", "--model", model, "--adapter", "resnet", *sample])
    adapter = folder / "fast_adapter.safetensors"
    adapter.unlink(missing_ok=True)
    run([*CONVERTERS, "export", model, adapter, "--adapter", "resnet"])
    return 0


def train(folder: Path, name: str, changes: dict[str, object]) -> None:
    """Trains a configuration of the paper with overrides that make it small."""
    stage = {f"stage.{key}": value for key, value in changes.items()}
    run(
        [
            *(*FLASHMOTION, "train", "--config", f"configs/{name}.py"),
            *settings(workdir=folder / name, cache=folder / "cache", batch_size=2),
            *settings(num_train_steps=STEPS, sample_every=STEPS, dtype="float32", remat="none"),
            *settings(**{"mesh.fsdp": 1}),
            *settings(**{"stage.slow_generator": folder / "wan22"}, **stage),
        ]
    )


def settings(**values: object) -> list[str]:
    """Returns the `--set` arguments."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def settings_of_sample(folder: Path) -> list[str | Path]:
    """Returns the sampling arguments for the first training clip."""
    return [
        *("--image", folder / "first_frame.png", "--trajectory", folder / "trajectory.json"),
        *("--height", str(HEIGHT), "--width", str(WIDTH), "--num-frames", str(NUM_FRAMES)),
        *("--prompt", "a red square moves"),
        *("--out", folder / "video.mp4", "--preview", folder / "preview.mp4"),
    ]


def write_magicdata(root: Path, count: int = 8) -> None:
    """Writes videos of a moving square, with mask and box maps, in MagicData's layout.

    Also writes the first frame and the trajectory of the first clip, for sampling.
    """
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        name = f"clip{index}"
        trajectory = moving_square(rng)
        masks = render(trajectory, HEIGHT, WIDTH, "mask")
        video = paint(masks, rng)
        write_video(root / "videos" / f"{name}.mp4", video)
        write_maps(root / "masks" / name, masks)
        write_maps(root / "boxs" / name, render(trajectory, HEIGHT, WIDTH, "box"))
        rows.append((f"videos/{name}.mp4", "a red square moves", NUM_FRAMES))
        if index == 0:
            trajectory.save(root.parent / "trajectory.json")
            Image.fromarray(video[0]).save(root.parent / "first_frame.png")
    with (root / "MagicData.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "text", "num_frames"), *rows])


def moving_square(rng: np.random.Generator) -> Trajectory:
    """A box that moves along a straight line."""
    boxes = [(x, y, x + 0.25, y + 0.35) for x, y in rng.uniform(0.0, 0.6, (2, 2))]
    keyframes = (Keyframe(0, boxes[0]), Keyframe(NUM_FRAMES - 1, boxes[1]))
    return Trajectory(
        canvas=Canvas(width=WIDTH, height=HEIGHT),
        num_frames=NUM_FRAMES,
        fps=24,
        objects=(TrackedObject(id=1, name="square", keyframes=keyframes),),
    )


def paint(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Red where the mask is, a gradient elsewhere; uint8 `[F, H, W, 3]`."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    shade = rng.integers(40, 120, 3)
    background = np.stack([shade[0] + x, shade[1] + y, shade[2] + x // 2], axis=-1)
    inside = masks.any(axis=-1, keepdims=True)
    return np.where(inside, (220, 40, 40), background).astype(np.uint8)


def write_maps(folder: Path, frames: np.ndarray) -> None:
    """Writes PNG files with MagicData's names."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"annotated_frame_{index:05d}.png")


if __name__ == "__main__":
    sys.exit(main())
