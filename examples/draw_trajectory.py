"""Draws a trajectory over its image, next to its map.

    python examples/draw_trajectory.py [trajectory.json photo.png out.webp]

Without arguments: the two objects of `sample_small.py`, to `docs/trajectory.webp`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import skimage.data

from flashmotion_jax import Trajectory
from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.media.images import read_image
from flashmotion_jax.trajectory import render
from sample_small import make_trajectory

HEIGHT, WIDTH = 240, 384


def main() -> int:
    """Reads the arguments and writes the animation."""
    if len(sys.argv) == 4:
        trajectory, photo = Trajectory.load(sys.argv[1]), read_image(sys.argv[2])
        out = Path(sys.argv[3])
    else:
        trajectory, photo = make_trajectory(), skimage.data.astronaut()[:320]
        out = Path(__file__).parents[1] / "docs" / "trajectory.webp"
    iio.imwrite(
        out, beside_map(trajectory, photo), duration=1000 / trajectory.fps, loop=0, quality=70
    )
    print(f"wrote {out}: {trajectory.num_frames} frames, {2 * WIDTH} x {HEIGHT}")
    return 0


def beside_map(trajectory: Trajectory, photo: np.ndarray) -> np.ndarray:
    """Returns the image with the map drawn over it, and the map, uint8 `[F, H, 2 W, 3]`."""
    maps = render(trajectory, HEIGHT, WIDTH)
    still = fit_frames(photo, HEIGHT, WIDTH)
    # Twice as bright as in the map, because the palette of the training data is dark.
    bright = np.minimum(2 * maps.astype(int), 255).astype(np.uint8)
    is_drawn = np.any(maps > 0, axis=-1)[..., None]
    is_drawn[0] = False  # frame 0 of the map is filled with the masks
    return np.concatenate([np.where(is_drawn, bright, still), maps], axis=2)


if __name__ == "__main__":
    sys.exit(main())
