"""A small MoveBench folder: squares that move to the right, two points in each."""

from __future__ import annotations

import numpy as np
from PIL import Image

from flashmotion_jax.media.videos import write_video

FRAMES, HEIGHT, WIDTH, SIDE, STEP = 9, 48, 80, 8, 3


def boxes(objects):
    """Left and top of each object on each frame, [F, K, 2]."""
    starts = np.array([(4, 4 + 20 * k) for k in range(objects)])
    return starts + np.arange(FRAMES)[:, None, None] * np.array([STEP, 0])


def frames(objects):
    video = np.full((FRAMES, HEIGHT, WIDTH, 3), 40, np.uint8)
    for t, corners in enumerate(boxes(objects)):
        for k, (x, y) in enumerate(corners.tolist()):
            video[t, y : y + SIDE, x : x + SIDE] = (200, 60 + 90 * k, 30)
    return video


def masks(objects):
    """Labels 1, 2, ... of every frame."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for t, corners in enumerate(boxes(objects)):
        for k, (x, y) in enumerate(corners.tolist()):
            labels[t, y : y + SIDE, x : x + SIDE] = k + 1
    return labels


def tracks(objects):
    """Points [F, N, 2] and what of them is visible [F, N]: the last point is not at the end."""
    inside = np.array([(2, 2), (5, 5)])
    points = (boxes(objects)[:, :, None] + inside).reshape(FRAMES, -1, 2).astype(np.float32)
    visible = np.ones(points.shape[:2], bool)
    visible[-2:, -1] = False
    return points, visible


def make_movebench(root, with_masks=True):
    for kind, objects in (("single", 1), ("multi", 2)):
        folder = root / "en"
        for part in ("first_frame", f"track/{kind}", f"first_frame_mask/{kind}"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        name = f"clip_{kind}"
        with (folder / f"{kind}_track.txt").open("w") as file:
            file.write(f"{name}.mp4,a {kind} square, it moves\n")
        Image.fromarray(frames(objects)[0]).save(
            folder / "first_frame" / f"{name}.jpg", quality=100
        )
        write_video(folder / "video" / f"{name}.mp4", frames(objects))
        points, visible = tracks(objects)
        np.save(folder / "track" / kind / f"{name}_tracks.npy", points[None])
        np.save(folder / "track" / kind / f"{name}_visibility.npy", visible[None])
        if with_masks:
            path = folder / "first_frame_mask" / kind / f"{name}.png"
            Image.fromarray(masks(objects)[0]).save(path)
    return root


def write_predictions(root, folder, shift=0, enlarge=1):
    """The truth moved `shift` pixels to the right, with its masks and tracks."""
    for kind, objects in (("single", 1), ("multi", 2)):
        name = f"{kind}/clip_{kind}"
        moved = np.roll(frames(objects), shift, axis=2)
        moved = moved.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
        write_video(folder / "videos" / f"{name}.mp4", moved)
        labels = np.roll(masks(objects), shift, axis=2)
        (folder / "masks" / name).mkdir(parents=True)
        for t, picture in enumerate(labels):
            Image.fromarray(picture).save(folder / "masks" / name / f"{t}.png")
        points, _ = tracks(objects)
        (folder / "tracks" / kind).mkdir(parents=True)
        np.save(
            folder / "tracks" / f"{name}_tracks.npy",
            (points[None] + np.array([shift, 0])) * enlarge,
        )
    return folder
