"""From Wan2.2's file layout to a trajectory-controlled video, with a small random model.

Writes a checkpoint with random weights in the original file layout, converts it, and samples a
video from a photo, a prompt and a trajectory of two objects. The files, commands and maps are real;
the video is noise, including its first frame, because the weights are not trained.

    python examples/sample_small.py [FOLDER]
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import skimage.data
from PIL import Image

from flashmotion_jax import Keyframe, TrackedObject, Trajectory
from flashmotion_jax.trajectory import Canvas
from small_checkpoint import write_small_adapter, write_small_checkpoint

NUM_FRAMES = 33


def main() -> int:
    """Writes everything to the given folder, by default `outputs/small`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/small")
    folder.mkdir(parents=True, exist_ok=True)
    print("writing a small checkpoint with random weights in the layout of Wan2.2-TI2V-5B")
    # The published VAE and text encoder are .pth files, which need torch; without it they are
    # written, and read, as safetensors under the same names.
    write_small_checkpoint(folder / "Wan2.2-TI2V-5B", torch_files=find_spec("torch") is not None)
    write_small_adapter(folder / "adapter.safetensors")
    Image.fromarray(skimage.data.astronaut()[:320]).save(folder / "photo.png")
    make_trajectory().save(folder / "trajectory.json")

    convert = [sys.executable, "-m", "flashmotion_jax.cli", "convert", "import"]
    checkpoint = folder / "checkpoint"
    run([*convert, folder / "Wan2.2-TI2V-5B", checkpoint, "--overwrite"])
    run([*convert, folder / "adapter.safetensors", checkpoint, "--overwrite"])
    run(
        [
            *(sys.executable, "-m", "flashmotion_jax.cli", "sample"),
            *("--model", checkpoint, "--adapter", "resnet"),
            *("--image", folder / "photo.png"),
            *("--prompt", "an astronaut looks around and smiles"),
            *("--trajectory", folder / "trajectory.json"),
            *("--sampler", "few_step", "--height", "160", "--width", "256"),
            *("--num-frames", str(NUM_FRAMES)),
            *("--out", folder / "video.mp4", "--preview", folder / "preview.mp4"),
        ]
    )
    return 0


def make_trajectory() -> Trajectory:
    """Two objects of the photo: the head moves left, the model shuttle rises."""
    last = NUM_FRAMES - 1
    head = (
        Keyframe(0, (0.28, 0.03, 0.56, 0.62)),
        Keyframe(last, (0.08, 0.10, 0.36, 0.69), ease="smooth"),
    )
    shuttle = (
        Keyframe(0, (0.72, 0.05, 0.97, 0.85)),
        Keyframe(last // 2, (0.72, 0.05, 0.97, 0.85)),
        Keyframe(last, (0.76, -0.45, 0.96, 0.25)),
    )
    return Trajectory(
        canvas=Canvas(width=512, height=320),
        num_frames=NUM_FRAMES,
        fps=24,
        objects=(
            TrackedObject(id=1, name="head", keyframes=head),
            TrackedObject(id=2, name="shuttle", keyframes=shuttle),
        ),
    )


def run(command: list[str | Path]) -> None:
    """Prints and runs a command; exits with its status if it fails."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(['python', *words[1:]])}", flush=True)
    status = subprocess.run(words).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
