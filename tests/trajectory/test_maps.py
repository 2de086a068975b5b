from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.trajectory import (
    Canvas,
    Keyframe,
    TrackedObject,
    Trajectory,
    load_maps,
    render,
)

SIZE = {"num_frames": 9, "height": 64, "width": 96}


def trajectory() -> Trajectory:
    left = Keyframe(0, (0.1, 0.1, 0.4, 0.6))
    right = Keyframe(4, (0.5, 0.3, 0.8, 0.8))
    return Trajectory(Canvas(120, 80), 5, 24.0, (TrackedObject(2, (left, right)),))


def test_trajectories_are_rendered_and_stretched(tmp_path: Path):
    maps = load_maps(trajectory(), **SIZE)
    assert maps.shape == (9, 64, 96, 3)
    np.testing.assert_array_equal(maps[::2], render(trajectory(), 64, 96))
    trajectory().save(tmp_path / "t.json")
    for path in (tmp_path / "t.json", str(tmp_path / "t.json")):
        np.testing.assert_array_equal(load_maps(path, **SIZE), maps)
    masks = load_maps(trajectory(), **SIZE, map_kind="mask")
    np.testing.assert_array_equal(masks[0], maps[0])
    areas = masks.any(axis=-1).sum(axis=(1, 2))
    np.testing.assert_allclose(areas, 0.3 * 0.5 * 64 * 96, rtol=0.05)


@pytest.mark.parametrize("name", ["maps", "maps.mp4", "maps.npy"])
@pytest.mark.parametrize("lossless", [True, False])
def test_map_videos_keep_their_colors_and_their_first_frame(
    tmp_path: Path, name: str, lossless: bool
):
    maps = render(trajectory(), 160, 240)
    write_video(tmp_path / name, maps, lossless=lossless)
    loaded = load_maps(tmp_path / name, **SIZE)
    expected = fit_frames(maps, 64, 96, nearest=True)[[0, 1, 1, 2, 2, 2, 3, 4, 4]]
    np.testing.assert_array_equal(np.unique(loaded), np.unique(expected))
    wrong = (loaded != expected).any(axis=-1)
    assert wrong[0].sum() <= 0.02 * expected[0].any(axis=-1).sum()
    assert wrong.sum() <= 0.1 * expected.any(axis=-1).sum()
    if lossless or not name.endswith(".mp4"):
        assert not wrong.any()


def test_arrays_are_resampled_by_nearest_and_never_repeat_the_masks():
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
    size = {"height": 2, "width": 2}
    assert load_maps(frames, num_frames=5, **size)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert load_maps(frames, num_frames=3, **size)[:, 0, 0, 0].tolist() == [0, 2, 4]
    long = load_maps(frames, num_frames=21, **size)[:, 0, 0, 0]
    assert long[0] == 0
    assert (long[1:] > 0).all()
    assert load_maps(frames[:1], num_frames=3, **size)[:, 0, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "cannot be a int"),
        (np.zeros((2, 8, 8, 3)), "uint8"),
        (np.zeros((8, 8, 3), np.uint8)[None, None], r"\[F, H, W, 3\]"),
        ("missing.json", "no trajectory at"),
        ("missing.mp4", "no video at"),
        ("empty", "holds no"),
        ("corrupt.mp4", "corrupt.mp4 is not a readable video"),
        ("corrupt.json", "corrupt.json is not JSON"),
        ("black.mp4", "black.mp4: frame 0 is black"),
    ],
)
def test_wrong_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, message: str):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("corrupt.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(100))
    Path("corrupt.json").write_text("{,}")
    write_video("black.mp4", np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=message):
        load_maps(source, **SIZE)


def test_trajectories_without_visible_objects_warn(tmp_path: Path):
    empty = Trajectory(Canvas(120, 80), 5, 24.0, ())
    with pytest.warns(UserWarning, match="has no objects"):
        assert not load_maps(empty, **SIZE).any()
    outside = tuple(
        TrackedObject(k, (Keyframe(0, (1.5, 0.1, 1.8, 0.5)),), f"object {k}") for k in range(2, 12)
    )
    mixed = Trajectory(Canvas(120, 80), 5, 24.0, outside)
    with pytest.warns(UserWarning, match="every frame: 2 'object 2', .* and 5 more;"):
        assert not load_maps(mixed, **SIZE).any()
    # The part of the canvas that the crop leaves out is outside, too.
    left = TrackedObject(1, (Keyframe(0, (0.0, 0.1, 0.2, 0.5)),), "left")
    with pytest.warns(UserWarning, match="every frame: 1 'left'"):
        load_maps(Trajectory(Canvas(400, 80), 5, 24.0, (left,)), num_frames=5, height=64, width=64)


def test_wrong_length(tmp_path: Path):
    Image.new("RGB", (8, 8), (128, 32, 32)).save(tmp_path / "0.png")
    for source in (trajectory(), tmp_path):
        with pytest.raises(ValueError, match="num_frames"):
            load_maps(source, num_frames=0, height=8, width=8)
