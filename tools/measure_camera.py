"""Measures what camera motion and anchors do with the included model, on the picture of examples/.

PYTHONPATH=. python tools/measure_camera.py

Prints, for each camera, means and standard deviations over seeds of the IoU of the objects' boxes
with the requested ones, and of the PSNR of the background to frame 0: pixels that no requested box
comes near. The background of Sprites stands still, so a high PSNR is right for a camera at rest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import flashmotion_jax as fm
from flashmotion_jax.editor.measure import report
from flashmotion_jax.trajectory import Camera, Trajectory, apply_camera

EXAMPLES = Path(__file__).parents[1] / "examples"
CAMERAS = ("", "static", "pan:0.2,0", "pan:0.2,0 anchors", "zoom:1.4", "zoom:1.4 anchors")
SEEDS = 8
MARGIN = 0.04  # around boxes, as a fraction of the picture


def background(boxes_KF4: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels that are away from all boxes on all frames, bool [H, W]."""
    y_H1 = ((np.arange(height) + 0.5) / height)[:, None]
    x_W = (np.arange(width) + 0.5) / width
    free_HW = np.ones((height, width), bool)
    for x0, y0, x1, y1 in boxes_KF4.reshape(-1, 4) + MARGIN * np.array([-1, -1, 1, 1]):
        free_HW &= ~((x_W > x0) & (x_W < x1) & (y_H1 > y0) & (y_H1 < y1))
    return free_HW


def main():
    trajectory = Trajectory.load(EXAMPLES / "sprites.json")
    pipeline = fm.Pipeline.from_pretrained(None)
    print(f"{'camera':20}{'IoU':>14}{'background PSNR':>20}")
    for text in CAMERAS:
        moved = apply_camera(trajectory, Camera.parse(text.split()))
        # Anchors are not measured.
        objects = replace(moved, objects=moved.objects[: len(trajectory.objects)])
        scores = []
        for seed in range(SEEDS):
            video = pipeline(EXAMPLES / "sprites.png", "", moved, seed=seed)
            rows = report(objects, video, of_sprites=True)["objects"]
            iou = np.mean([one for row in rows for one in row["iou"] if one is not None])
            free_HW = background(objects.boxes(len(video)), *video.shape[1:3])
            change = video[1:, free_HW].astype(np.float64) - video[:1, free_HW]
            scores.append((iou, 10 * np.log10(255**2 / np.mean(change**2))))
        (iou, psnr), (of_iou, of_psnr) = np.mean(scores, 0), np.std(scores, 0, ddof=1)
        print(f"{text or 'none':20}{iou:8.3f} ± {of_iou:.3f}{psnr:11.1f} ± {of_psnr:.1f} dB")


if __name__ == "__main__":
    main()
