"""Moves the objects of one image along two trajectories, and shows each video next to its map.

    python examples/own_trajectory.py MODEL OUT.webp

MODEL is a checkpoint of Sprites (`examples/sprites.sh`). Takes a few seconds on two CPU cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from flashmotion_jax import Pipeline, Trajectory
from flashmotion_jax.cli.options import add_traceback
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import exit_status
from flashmotion_jax.trajectory import Canvas, move, objects_from_label_png

HERE = Path(__file__).parent
IMAGE, LABELS = HERE / "sprites.png", HERE / "sprites_labels.png"
#: Prompt -> displacement of the triangle (1) and the circle (2), right and down, in 0..1 of the
#: image.
TRAJECTORIES = {
    "a dotted yellow triangle moves down, a blue circle stands still": {1: (0.0, 0.5)},
    "a dotted yellow triangle moves down and to the right, a blue circle moves to the left": {
        1: (0.35, 0.45),
        2: (-0.5, 0.0),
    },
}
#: Enlargement of the output.
ZOOM = 4


def main() -> int:
    """Runs the command line and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="checkpoint folder")
    parser.add_argument("out", type=Path, metavar="OUT.webp")
    add_traceback(parser)
    args = parser.parse_args()
    return exit_status("own_trajectory", lambda: run(args), traceback="traceback" in args)


def run(args: argparse.Namespace) -> int:
    """Writes the animation."""
    pipe = Pipeline.from_pretrained(args.model, adapter="controlnet")
    rows = [beside_map(pipe, prompt, draw(moves)) for prompt, moves in TRAJECTORIES.items()]
    shown = np.concatenate(rows, axis=1).repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)
    with replacing(args.out) as scratch:
        duration = 1000 / pipe.sampling.fps
        iio.imwrite(scratch, shown, extension=".webp", duration=duration, loop=0, lossless=True)
    print(f"wrote {args.out}: {len(rows)} videos next to their maps, {len(shown)} frames")
    return 0


def draw(moves: dict[int, tuple[float, float]]) -> Trajectory:
    """Moves the objects of the label image linearly by their displacement."""
    objects = objects_from_label_png(LABELS)
    trajectory = Trajectory(Canvas(64, 64), num_frames=17, fps=8, objects=objects)
    for object_id, (dx, dy) in moves.items():
        trajectory = move(trajectory, object_id, dx, dy)
    return trajectory


def beside_map(pipe: Pipeline, prompt: str, trajectory: Trajectory) -> np.ndarray:
    """Generates a video, and returns it next to its map, uint8 `[F, H, 2 W, 3]`."""
    request = pipe.request(str(IMAGE), prompt, trajectory, seed=0)
    assert request.maps is not None  # the request has a trajectory
    return np.concatenate([request.maps[0], pipe.run(request)[0]], axis=2)


if __name__ == "__main__":
    sys.exit(main())
