from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flashmotion_jax.media.videos import read_video, write_video
from flashmotion_jax.trajectory import (
    PALETTE,
    Canvas,
    Keyframe,
    Mask,
    TrackedObject,
    Trajectory,
    render,
)
from flashmotion_jax.trajectory.formats import read_magicmotion, write_magicmotion

HEIGHT, WIDTH = 240, 320


def item(object_id: int, center: tuple[int, int], radius: int, dx: int, dy: int) -> TrackedObject:
    mask = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), center, radius, 1, -1)
    box = np.array(Mask.from_array(mask).box())
    shift = np.array([dx / WIDTH, dy / HEIGHT] * 2)
    keyframes = (Keyframe(0, tuple(box.tolist())), Keyframe(12, tuple((box + shift).tolist())))
    name = f"object {object_id}"
    return TrackedObject(object_id, keyframes, name, mask=Mask.from_array(mask))


def trajectory(sparse_frames: tuple[int, ...] | None = None) -> Trajectory:
    # The first leaves the picture to the left, the second crosses it.
    objects = (item(2, (120, 130), 40, -180, 0), item(3, (220, 100), 25, -60, 48))
    return Trajectory(Canvas(WIDTH, HEIGHT), 13, 8.0, objects, sparse_frames)


@pytest.mark.parametrize("name", ["maps", "maps.mp4"])
@pytest.mark.parametrize("sparse_frames", [None, (0, 1, 6, 12)])
def test_round_trip_is_exact(tmp_path: Path, name: str, sparse_frames: tuple[int, ...] | None):
    original = trajectory(sparse_frames)
    write_magicmotion(original, tmp_path / name)
    frames, fps = read_video(tmp_path / name)
    maps = render(original, HEIGHT, WIDTH, compat="magicmotion")
    np.testing.assert_array_equal(frames, maps)
    imported = read_magicmotion(tmp_path / name)
    assert imported.fps == fps
    assert imported.sparse_frames == sparse_frames
    assert [o.mask for o in imported.objects] == [o.mask for o in original.objects]
    assert [o.id for o in imported.objects] == [2, 3]
    assert len(imported.objects[1].keyframes) <= 5
    np.testing.assert_array_equal(render(imported, HEIGHT, WIDTH), maps)


def test_lossy_videos_are_read_to_a_pixel_or_two(tmp_path: Path):
    original = trajectory()
    write_video(tmp_path / "maps.mp4", render(original, HEIGHT, WIDTH), 8.0)
    imported = read_magicmotion(tmp_path / "maps.mp4", tolerance=1.0)
    size = np.array([WIDTH, HEIGHT] * 2)
    assert np.abs((imported.boxes() - original.boxes()) * size)[:, 1:].max() <= 3
    for read, written in zip(imported.objects, original.objects, strict=True):
        assert read.mask is not None
        assert written.mask is not None
        a, b = read.mask.to_array(), written.mask.to_array()
        assert (a & b).sum() / (a | b).sum() > 0.97


def test_mask_videos_and_colors_outside_the_palette(tmp_path: Path):
    frames = np.zeros((3, 60, 80, 3), np.uint8)
    for frame in range(3):
        frames[frame, 10:30, 5 + 10 * frame : 25 + 10 * frame] = 128, 0, 0
        frames[frame, 40:50, 30:50] = PALETTE[1]
    write_video(tmp_path / "maps", frames)
    imported = read_magicmotion(tmp_path / "maps", map_kind="mask")
    assert [(o.id, o.color) for o in imported.objects] == [(1, None), (2, "#800000")]
    np.testing.assert_array_equal(render(imported, 60, 80, "mask"), frames)
    pixels = imported.boxes()[1] * [80, 60, 80, 60]
    np.testing.assert_allclose(pixels[:, 0], [5, 15, 25], atol=0.45)


def test_no_objects(tmp_path: Path):
    write_video(tmp_path / "black", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="frame 0 is black"):
        read_magicmotion(tmp_path / "black")
    with pytest.raises(ValueError, match="no video at"):
        read_magicmotion(tmp_path / "missing.mp4")
