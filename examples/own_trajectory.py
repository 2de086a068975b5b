"""Draws trajectories in Python, samples them with the model that ships, shows maps beside videos.

    python examples/own_trajectory.py [FOLDER]

One picture, one noise, three wishes. The picture is of Sprites, the small world the model knows;
training never saw it. `sprites_labels.png` says which of its pixels are which object.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from flashmotion_jax import Pipeline, Trajectory
from flashmotion_jax.data.video import read_image
from flashmotion_jax.trajectory import Canvas, move, objects_from_label_png, render, scale

HERE = Path(__file__).parent
DIAMOND, SQUARE = 1, 2
#: Screen pixels for each one of the animation.
ENLARGED = 4


def main() -> int:
    """Writes below the folder given, by default `outputs/own`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/own")
    folder.mkdir(parents=True, exist_ok=True)
    picture = read_image(HERE / "sprites.png")
    wishes = make_trajectories()
    for name, (trajectory, _) in wishes.items():
        trajectory.save(folder / f"{name}.json")
    trajectories, prompts = zip(*wishes.values(), strict=True)

    pipeline = Pipeline.load(adapter="resnet")
    videos = pipeline([picture] * len(prompts), list(prompts), list(trajectories))

    iio.imwrite(
        folder / "beside.webp",
        np.concatenate(list(map(beside_map, trajectories, videos)), axis=1),
        duration=1000 / trajectories[0].fps,
        loop=0,
        lossless=True,
    )
    print(f"wrote {folder}: {', '.join(f'{name}.json' for name in wishes)}, beside.webp")
    return 0


def make_trajectories() -> dict[str, tuple[Trajectory, str]]:
    """Name -> trajectory, and the prompt that says the same."""
    objects = objects_from_label_png(HERE / "sprites_labels.png")
    still = Trajectory(Canvas(64, 64), num_frames=17, fps=8, objects=objects)
    swap = move(move(still, DIAMOND, dx=0.4, dy=0.3), SQUARE, dx=-0.4, dy=-0.3)
    grow = scale(move(still, SQUARE, dx=0, dy=-0.4, ease="smooth"), DIAMOND, 1.5)
    return {
        "swap": (
            swap,
            "a pink diamond moves down and to the right, a cyan square moves up and to the left",
        ),
        "grow": (grow, "a pink diamond grows, a cyan square moves up"),
    }


def beside_map(trajectory: Trajectory, video: np.ndarray) -> np.ndarray:
    """What the model gets, and what it makes of it; uint8 `[F, H, 2 W, 3]`, enlarged."""
    maps = render(trajectory, *video.shape[1:3])
    both = np.concatenate([maps, video], axis=2)
    return both.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)


if __name__ == "__main__":
    sys.exit(main())
