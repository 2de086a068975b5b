"""Measures `exact_maps` on lossy map videos: time a frame, and wrong pixels.

Run: python tools/measure_maps.py [--height 704 --width 1280 --num-frames 121]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from flashmotion_jax.media.videos import read_video, write_video
from flashmotion_jax.trajectory import Canvas, Keyframe, TrackedObject, Trajectory, render
from flashmotion_jax.trajectory.quantize import exact_maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=704)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--num-frames", type=int, default=121)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    boxes = [(0.05, 0.3, 0.4, 0.9), (0.5, 0.1, 0.7, 0.5), (0.6, 0.6, 0.95, 0.95)]
    objects = []
    for k, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        end = Keyframe(options.num_frames - 1, (x0 + 0.1, y0 - 0.1, x1 + 0.1, y1 - 0.1))
        objects.append(TrackedObject(k, (Keyframe(0, (x0, y0, x1, y1)), end)))
    canvas = Canvas(options.width, options.height)
    trajectory = Trajectory(canvas, options.num_frames, 24.0, tuple(objects))
    for map_kind in ("box", "mask"):
        maps = render(trajectory, options.height, options.width, map_kind)
        with TemporaryDirectory() as folder:
            write_video(Path(folder, "maps.mp4"), maps)
            frames, _ = read_video(Path(folder, "maps.mp4"))
        seconds = []
        for _ in range(options.repeats):
            start = time.perf_counter(), time.process_time()
            restored = exact_maps(frames)
            seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        wrong = np.mean((restored != maps).any(axis=-1))
        wall, cpu = (1e3 * min(times) / len(frames) for times in zip(*seconds, strict=True))
        print(
            f"{map_kind}: {wall:.1f} ms a frame, {cpu:.1f} ms of CPU (the best of "
            f"{options.repeats} runs over {len(frames)} frames), {100 * wrong:.3f} % wrong pixels"
        )


if __name__ == "__main__":
    main()
