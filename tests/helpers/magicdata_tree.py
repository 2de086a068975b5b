"""A small MagicData folder: good rows, and rows with everything that can be wrong with one."""

from __future__ import annotations

import csv

import numpy as np
from PIL import Image

from flashmotion_jax.media.videos import write_video

FRAMES = 9
SIZE = (48, 80)  # of the files: not the size that training asks for

#: id -> message of its RowError, for the rows that `add_bad_rows` adds.
PROBLEMS = {
    "short": "5 frames in the file, 9 are needed",
    "claims": "5 frames according to the CSV, 9 are needed",
    "absent": "no videos/absent.mp4",
    "cut": "",  # FFmpeg's message
    "few": "masks/few lacks 2 of 9 maps (first: annotated_frame_00004.png)",
    "nobox": "boxs/nobox lacks 8 of 9 maps (first: annotated_frame_00001.png)",
    "torn": "annotated_frame_00003.png is not a readable image",
    "wide": "the aspect ratios differ",
    "frames5": "5 images in videos/frames5, 9 are needed",
}
#: Those that only decoding reveals.
DECODED = ("short", "cut", "torn", "wide")


def video_frames(seed, count=FRAMES, size=SIZE):
    t, y, x = np.mgrid[:count, : size[0], : size[1]]
    channels = [3 * y + (5 + seed) * t, 2 * x + 40 * seed, 120 + y - x]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def map_frames(seed, kind, count=FRAMES, size=SIZE):
    """A square of one color on black that moves; masks are smaller than boxes."""
    frames = np.zeros((count, *size, 3), np.uint8)
    side = 10 if kind == "masks" else 16
    for t in range(count):
        frames[t, 8 + t : 8 + t + side, 4 + 3 * t : 4 + 3 * t + side] = (128, 32 + seed, 32)
    return frames


def write_maps(folder, frames):
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"annotated_frame_{i:05d}.png")


def add_video(root, id, seed, count=FRAMES):
    write_video(root / "videos" / f"{id}.mp4", video_frames(seed, count))
    for kind in ("masks", "boxs"):
        write_maps(root / kind / id, map_frames(seed, kind))


def write_csv(root, rows, columns=("path", "text", "num_frames", "fps", "aes")):
    with (root / "MagicData.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def row(id, caption="a red ball rolls", frames=FRAMES):
    return [f"/home/someone/data/{id}.mp4", caption, frames, 24, 5.5]


def make_tree(root, count=4):
    """`count` good rows, v0, v1, ...

    Returns:
      The folder.
    """
    for i in range(count):
        add_video(root, f"v{i}", i)
    write_csv(root, [row(f"v{i}", f"a dog runs to v{i}") for i in range(count)])
    return root


def add_bad_rows(root, good):
    """Inserts a bad row after each good one, and the rest at the end."""
    for seed, id in enumerate(PROBLEMS):
        add_video(root, id, seed, count=5 if id == "short" else FRAMES)
    videos, masks = root / "videos", root / "masks"
    (videos / "absent.mp4").unlink()
    (videos / "cut.mp4").write_bytes((videos / "v0.mp4").read_bytes()[:-200])
    for i in (4, 6):
        (masks / "few" / f"annotated_frame_{i:05d}.png").unlink()
    for file in (root / "boxs" / "nobox").iterdir():
        file.unlink()
    torn = masks / "torn" / "annotated_frame_00003.png"
    torn.write_bytes(torn.read_bytes()[:60])
    for kind in ("masks", "boxs"):
        for file in (root / kind / "wide").iterdir():
            Image.new("RGB", (SIZE[1] * 2, SIZE[0])).save(file)
    (videos / "frames5.mp4").unlink()
    write_video(videos / "frames5", video_frames(0, 5))
    rows = [row(f"v{i}", f"a dog runs to v{i}") for i in range(good)]
    for i, id in enumerate(PROBLEMS):
        rows.insert(2 * i + 1, row(id, frames=5 if id == "claims" else FRAMES))
    write_csv(root, rows)
