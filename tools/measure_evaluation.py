"""Time and peak memory of `flashmotion evaluate` on videos of full size, with FID and FVD.

    PYTHONPATH=.:tests python tools/measure_evaluation.py FOLDER [--videos N] [--height H --width W]

Draws N videos of 121 frames with two objects, scores noisy copies against them with networks of
full width and random weights, and prints time and memory of FVD, of FID, and of the Fréchet
distance of many videos, each in a separate process. Frames are read one at a time and scores are
kept on disk, so the memory of scoring does not depend on the number of videos. Neither does that of
the distance, which holds the features of one video and the moments of one group.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np

from flashmotion_jax.cli.main import main
from flashmotion_jax.evaluation.frechet import frechet_of_videos
from flashmotion_jax.media.videos import write_video
from helpers import magicdata_tree as tree
from helpers.small_networks import write_network

FRAMES = 121


def peak():
    """Peak memory of this process in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def draw(root, number, size):
    """Writes a video with two squares on a moving ramp, its masks, and a noisy copy."""
    rng = np.random.default_rng(number)
    height, width = size
    y, x = np.mgrid[:height, :width]
    video = np.empty((FRAMES, height, width, 3), np.uint8)
    labels = np.zeros((FRAMES, height, width, 3), np.uint8)
    side = height // 6
    for t in range(FRAMES):
        video[t] = ((x + 2 * y + 3 * t + 40 * number) % 256)[..., None]
        for k, color in enumerate(((128, 32, 32), (128, 80, 80))):
            top, left = height // 4 + k * 2 * side, width // 8 + (2 + k) * t
            video[t, top : top + side, left : left + side] = (220, 60 + 90 * k, 30)
            labels[t, top : top + side, left : left + side] = color
    write_video(root / "videos" / f"v{number}.mp4", video)
    tree.write_maps(root / "masks" / f"v{number}", labels)
    for frame in video:
        noise = rng.integers(-20, 21, frame.shape, np.int16)
        frame[:] = (frame + noise).clip(0, 255)
    write_video(root / "pred" / f"v{number}.mp4", video)


def measure_distance(videos):
    """Computes the Fréchet distance of the frames of many videos, one video at a time."""
    rng = np.random.default_rng(1)
    start = time.perf_counter()

    def read(i):
        del i
        rows = rng.standard_normal((FRAMES, 2048), np.float32)
        return rows, rows + 0.1 * rng.standard_normal(rows.shape, np.float32)

    frechet_of_videos(read, videos)
    print(f"FID of {videos} videos: {time.perf_counter() - start:.0f} s, peak {peak():.2f} GB")


def score(root, number, *more):
    start = time.perf_counter()
    inputs = ["--bench", "folder", "--root", str(root), "--pred", str(root / "pred")]
    networks = ["--masks", str(root / "masks"), "--weights", str(root / "weights")]
    assert main(["evaluate", *inputs, *networks, *more, "--out", str(root / f"out{number}")]) == 0
    print(
        f"{' '.join(more)}: {time.perf_counter() - start:.0f} s, peak {peak():.2f} GB", flush=True
    )


def apart(job, *arguments):
    """Runs a job in a separate process, to measure its own peak."""
    worker = multiprocessing.get_context("spawn").Process(target=job, args=arguments)
    worker.start()
    worker.join()


def run():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=1)
    parser.add_argument("--height", type=int, default=704)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--fid-frames", type=int, default=FRAMES, help="frames of FID")
    parser.add_argument(
        "--distance-videos", type=int, default=20, help="videos of the Fréchet distance"
    )
    args = parser.parse_args()
    size = args.height, args.width
    for number in range(args.videos):
        draw(args.folder, number, size)
    for network in ("inception", "i3d"):
        write_network(args.folder / "weights", network)
    print(f"drawing: peak {peak():.2f} GB; the rest runs in separate processes", flush=True)
    apart(score, args.folder, 0, "--fid", "none")
    apart(score, args.folder, 1, "--fvd", "none", "--method-frames", str(args.fid_frames))
    apart(measure_distance, args.distance_videos)


if __name__ == "__main__":
    run()
