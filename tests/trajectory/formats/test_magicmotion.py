from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.config import MapKind
from flashmotion_jax.media.videos import read_video, write_video
from flashmotion_jax.trajectory import (
    PALETTE,
    Canvas,
    Keyframe,
    Mask,
    TrackedObject,
    Trajectory,
    load_maps,
    render,
)
from flashmotion_jax.trajectory.drawing import stroke_radius
from flashmotion_jax.trajectory.formats import (
    ImportOptions,
    find_format,
    read_magicmotion,
    read_trajectory,
    write_magicmotion,
)

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


def test_a_color_that_is_hidden_on_frame_0_is_not_taken_for_one_near_it(tmp_path: Path):
    near, hidden = (64, 80, 104), (64, 80, 101)
    frames = np.zeros((3, 60, 80, 3), np.uint8)
    frames[:, 10:30, 10:30] = near
    frames[1:, 40:50, 30:50] = hidden
    write_video(tmp_path / "maps", frames)
    imported = read_magicmotion(tmp_path / "maps", map_kind="mask")
    assert [item.rgb for item in imported.objects] == [near, hidden]
    np.testing.assert_allclose(pixels(imported, 0), [[10, 10, 30, 30]] * 3, atol=0.45)


@pytest.mark.parametrize("is_near_there", [False, True])
def test_an_outline_that_is_hidden_on_frame_0_is_not_taken_for_one_near_it(
    tmp_path: Path, is_near_there: bool
):
    still, away = Keyframe(0, (0.1, 0.1, 0.3, 0.4)), Keyframe(1, (1.5, 0.1, 1.7, 0.4))
    near = (still,) if is_near_there else (still, away)
    hidden = Keyframe(0, (0.5, 0.5, 0.7, 0.8)), Keyframe(1, (0.4, 0.5, 0.6, 0.8))
    objects = (
        TrackedObject(1, near, color="#00ff47"),
        TrackedObject(2, (hidden[0],)),  # the first of equal areas is painted last
        TrackedObject(3, hidden, color="#00ff44"),
    )
    original = Trajectory(Canvas(120, 100), 4, 8.0, objects)
    write_video(tmp_path / "maps", render(original, 100, 120))
    imported = read_magicmotion(tmp_path / "maps")
    assert [item.rgb for item in imported.objects] == [(0, 255, 71), (128, 80, 80), (0, 255, 68)]
    np.testing.assert_allclose(pixels(imported, 2)[1:], pixels(original, 2)[1:], atol=1)
    if is_near_there:
        np.testing.assert_allclose(pixels(imported, 0), pixels(original, 0), atol=1)


@pytest.mark.parametrize("edge", [1, 3])
def test_an_outline_of_which_one_edge_is_seen_keeps_its_size(tmp_path: Path, edge: int):
    """Another outline is drawn over the other edges, one pixel beside this one."""
    first = np.array([30, 70, 131, 108])
    box = np.array([56, 12, 157, 50])
    other = box.copy()
    other[edge] += 1 if edge > 1 else -1
    away = Keyframe(0, (0.1, 0.8, 0.2, 0.9), "hold")
    objects = (
        TrackedObject(1, (Keyframe(0, tuple(first / 186), "hold"), Keyframe(1, tuple(box / 186)))),
        TrackedObject(2, (away, Keyframe(1, tuple(other / 186), "hold"), Keyframe(2, away.box))),
    )
    original = Trajectory(Canvas(186, 186), 4, 8.0, objects)
    write_magicmotion(original, tmp_path / "maps")
    imported = read_magicmotion(tmp_path / "maps")
    np.testing.assert_allclose(pixels(imported, 0), pixels(original, 0), atol=1)


@pytest.mark.parametrize("below", [30, 63])
def test_an_outline_that_left_but_for_one_edge_is_not_turned_around(tmp_path: Path, below: int):
    """Another outline hides its sides above the edge and below it, but no edge at its size."""
    size = np.array([164, 152, 164, 152])
    first, last = np.array([20, 60, 90, 72]) / size, np.array([20, -6, 90, 6]) / size
    other = Keyframe(2, tuple(np.array([20, -below, 90, below]) / size), "hold")
    objects = (
        TrackedObject(1, (Keyframe(0, tuple(first), "hold"), Keyframe(2, tuple(last)))),
        TrackedObject(2, (Keyframe(0, (0.1, 0.8, 0.2, 0.9), "hold"), other)),
    )
    original = Trajectory(Canvas(164, 152), 4, 8.0, objects)
    write_magicmotion(original, tmp_path / "maps")
    imported = read_magicmotion(tmp_path / "maps")
    np.testing.assert_allclose(pixels(imported, 0), pixels(original, 0), atol=1)


def test_an_object_of_which_little_is_seen_on_frame_0_keeps_its_color(tmp_path: Path):
    """Two columns are too narrow to be flat, and the other color is near."""
    sliver = Keyframe(0, (0.1, 0.1, 0.5, 0.5)), Keyframe(3, (0.4, 0.5, 0.8, 0.9))
    cover = Keyframe(0, (0.12, 0.1, 0.5, 0.5)), Keyframe(3, (0.12, 0.1, 0.5, 0.5))
    objects = TrackedObject(1, sliver, color="#800007"), TrackedObject(2, cover, color="#800000")
    original = Trajectory(Canvas(100, 100), 4, 8.0, objects)
    write_video(tmp_path / "maps", render(original, 100, 100))
    imported = read_magicmotion(tmp_path / "maps")
    assert sorted(item.rgb for item in imported.objects) == [(128, 0, 0), (128, 0, 7)]
    (found,) = (k for k, item in enumerate(imported.objects) if item.rgb == (128, 0, 7))
    np.testing.assert_allclose(pixels(imported, found), pixels(original, 0), atol=1)


@pytest.mark.parametrize("side", [0, 1, 2, 3])
@pytest.mark.parametrize(("size", "over"), [(120, 1), (240, 0), (240, 1), (240, 2)])
def test_a_stroke_beside_or_under_another_is_where_it_is(
    tmp_path: Path, side: int, size: int, over: int
):
    """Another object's stroke begins `over` pixels beyond the middle of an edge."""
    radius = stroke_radius(size, size)
    box = np.array([40, 40, 90, 80])
    other = np.array([44, 44, 86, 76])
    sign = 1 if side > 1 else -1
    other[side] = box[side] + sign * (over + radius)
    other[side - 2] = other[side] + sign * 20
    other[[side % 2, side % 2 + 2]].sort()
    other = np.sort(other.reshape(2, 2), axis=0).ravel()
    # On frame 0 another size, so that only the frame itself tells where the edge is.
    first = Keyframe(0, (30 / size, 30 / size, 60 / size, 55 / size), "hold")
    objects = (
        TrackedObject(1, (first, Keyframe(1, tuple(box / size)))),
        TrackedObject(
            2, (Keyframe(0, (0.8, 0.8, 0.9, 0.9), "hold"), Keyframe(1, tuple(other / size)))
        ),
    )
    original = Trajectory(Canvas(size, size), 3, 8.0, objects)
    write_magicmotion(original, tmp_path / "maps")
    imported = read_magicmotion(tmp_path / "maps")
    np.testing.assert_allclose(pixels(imported, 0)[1:], pixels(original, 0)[1:], atol=0.5)


@pytest.mark.parametrize("map_kind", ["box", "filled_box"])
@pytest.mark.parametrize("crf", [4, 18, 34])
def test_a_lossy_video_whose_first_frame_is_exact(tmp_path: Path, map_kind: MapKind, crf: int):
    """Squares on the grid of x264's blocks come back exactly, what follows does not."""
    ends = ((16, 16, 48, 48), (16, 16, 48, 48)), ((64, 32, 96, 64), (112, 32, 144, 64))
    objects = tuple(
        TrackedObject(
            k,
            tuple(
                Keyframe(6 * n, (x0 / 160, y0 / 96, x1 / 160, y1 / 96))
                for n, (x0, y0, x1, y1) in enumerate(both)
            ),
            color=color,
        )
        for k, (both, color) in enumerate(zip(ends, ("#ff0000", "#000080"), strict=True), start=1)
    )
    original = Trajectory(Canvas(160, 96), 7, 8.0, objects)
    maps = render(original, 96, 160, map_kind)
    encode(tmp_path / "maps.mp4", maps, "libx264", "yuv444p", {"crf": str(crf)})
    imported = read_magicmotion(tmp_path / "maps.mp4", map_kind)
    assert len(imported.objects) == 2
    for k in range(2):
        np.testing.assert_allclose(pixels(imported, k), pixels(original, k), atol=1)


@pytest.mark.parametrize("map_kind", ["box", "filled_box", "mask"])
def test_objects_that_enter_later_are_outside_before(tmp_path: Path, map_kind: MapKind):
    there = Keyframe(0, (0.1, 0.2, 0.3, 0.5))
    entering = Keyframe(0, (-0.4, 0.3, -0.1, 0.7)), Keyframe(11, (0.5, 0.3, 0.8, 0.7))
    objects = TrackedObject(1, (there,)), TrackedObject(2, entering)
    original = Trajectory(Canvas(160, 96), 12, 24.0, objects)
    maps = render(original, 96, 160, map_kind)
    write_video(tmp_path / "maps", maps)
    imported = read_trajectory(tmp_path / "maps", ImportOptions(map_kind=map_kind))
    assert [item.id for item in imported.trajectory.objects] == [1, 2]
    assert imported.notices == ("objects 2 enter after frame 0, so their masks are not known",)
    # Where its entering edge is outside, the size that it has inside completes it.
    again = render(imported.trajectory, 96, 160, map_kind)
    assert (again != maps).any(axis=-1).mean() < 0.01
    first = np.flatnonzero((maps == np.array(PALETTE[2])).all(axis=-1).any(axis=(1, 2)))[0]
    assert not (again[:first] == np.array(PALETTE[2])).all(axis=-1).any()


def pixels(trajectory: Trajectory, k: int) -> np.ndarray:
    """The boxes of an object, [F, 4], in pixels."""
    canvas = trajectory.canvas
    return trajectory.boxes()[k] * ([canvas.width, canvas.height] * 2)


def test_an_object_behind_another_keeps_its_size_and_moves_on(tmp_path: Path):
    frames = np.zeros((40, 96, 160, 3), np.uint8)
    x = 4 * np.arange(40)
    for frame in range(40):
        frames[frame, 30:70, x[frame] : x[frame] + 24] = PALETTE[1]
        frames[frame, 10:90, 80:130] = PALETTE[2]
    write_video(tmp_path / "maps", frames)
    imported = read_magicmotion(tmp_path / "maps", map_kind="mask")
    expected = np.stack([x, 0 * x + 30, x + 24, 0 * x + 70], axis=1)
    np.testing.assert_allclose(pixels(imported, 0), expected, atol=1)
    np.testing.assert_allclose(pixels(imported, 1), [[80, 10, 130, 90]] * 40, atol=1e-9)


@pytest.mark.parametrize("returns", [False, True])
def test_an_object_that_vanishes_keeps_its_size(tmp_path: Path, returns: bool):
    """A disc that shrinks to nothing, and one that jumps behind a wall and may come back."""
    frames = np.zeros((30, 96, 160, 3), np.uint8)
    for frame in range(30):
        radius = max(20 - frame, 10 if returns else 0)
        if radius and not 20 <= frame < 26:
            cv2.circle(frames[frame], (40 + frame, 48), radius, PALETTE[1].tolist(), -1)
        frames[frame, 10:20, 80:130] = PALETTE[2]
    write_video(tmp_path / "maps", frames)
    boxes = pixels(read_magicmotion(tmp_path / "maps", map_kind="mask"), 0)
    last = boxes[19]
    assert (boxes[20:26, 2:] - boxes[20:26, :2] >= last[2:] - last[:2] - 1).all()
    np.testing.assert_allclose(np.diff(boxes[20:26, ::2].mean(axis=1)), 1, atol=0.3)


@pytest.mark.parametrize("map_kind", ["box", "filled_box", "mask"])
def test_an_own_map_whose_object_shrinks_and_leaves_comes_back(tmp_path: Path, map_kind: MapKind):
    boxes = {0: (0.1, 0.1, 0.6, 0.8), 10: (0.9, 0.4, 1.0, 0.5), 14: (1.1, 0.45, 1.15, 0.5)}
    keyframes = tuple(Keyframe(frame, box) for frame, box in boxes.items())
    leaving = TrackedObject(1, (*keyframes, Keyframe(39, boxes[14])))
    still = TrackedObject(2, (Keyframe(0, (0.2, 0.2, 0.4, 0.5)),))
    original = Trajectory(Canvas(160, 96), 40, 24.0, (leaving, still))
    write_magicmotion(original, tmp_path / "maps.mp4", map_kind)
    imported = read_magicmotion(tmp_path / "maps.mp4", map_kind)
    np.testing.assert_allclose(pixels(imported, 0)[:10], pixels(original, 0)[:10], atol=1)
    np.testing.assert_allclose(pixels(imported, 1), pixels(original, 1), atol=1)
    assert (pixels(imported, 0)[12:, 0] >= 160).all()
    if map_kind == "box":
        maps = [render(one, 96, 160) for one in (imported, original)]
        np.testing.assert_array_equal(*maps)


def test_every_random_clip_can_be_read(tmp_path: Path):
    """Discs that walk, shrink and cover each other, with and without outlines."""
    rng = np.random.default_rng(0)
    for trial in range(40):
        frames = np.zeros((12, 48, 64, 3), np.uint8)
        start, step = rng.uniform(0, 64, (4, 2)), rng.normal(0, 4, (4, 2))
        radius, growth = rng.uniform(3, 12, 4), rng.normal(0, 1, 4)
        for frame in range(12):
            for k in rng.permutation(4) if trial % 2 else range(4):
                x, y = np.rint(start[k] + frame * step[k]).astype(int).tolist()
                size = round(radius[k] + frame * growth[k])
                fill = -1 if frame == 0 or trial % 3 else 1
                if size > 0:
                    cv2.circle(frames[frame], (x, y), size, PALETTE[k + 1].tolist(), fill)
        if frames[0].any():
            write_video(tmp_path / "maps.npy", frames)
            for map_kind in ("box", "mask"):
                read_magicmotion(tmp_path / "maps.npy", map_kind)


@pytest.mark.parametrize("name", ["{}.png", "f{:05d}.PNG", "frame {}.jpg", "{}.webp"])
def test_folders_of_images_are_read_in_the_order_of_their_numbers(tmp_path: Path, name: str):
    maps = render(trajectory(), HEIGHT, WIDTH)
    for number, frame in enumerate(maps):
        quality = {"lossless": True} if name.endswith("webp") else {"quality": 95}
        Image.fromarray(frame).save(tmp_path / name.format(number), **quality)
    assert find_format(tmp_path).name == "magicmotion_png"
    loaded = load_maps(tmp_path, num_frames=len(maps), height=HEIGHT, width=WIDTH)
    assert (loaded != maps).any(axis=-1).sum() <= 0.1 * maps.any(axis=-1).sum()
    if "jpg" not in name:
        np.testing.assert_array_equal(loaded, maps)
    size = np.array([WIDTH, HEIGHT] * 2)
    imported = read_magicmotion(tmp_path, tolerance=1.0)
    assert np.abs((imported.boxes() - trajectory().boxes()) * size)[:, :5].max() <= 3


@pytest.mark.parametrize("name", ["maps.gif", "maps.avi", "maps.mkv"])
def test_other_containers_are_read(tmp_path: Path, name: str):
    maps = render(trajectory(), HEIGHT, WIDTH)
    if name.endswith("gif"):
        first, *rest = map(Image.fromarray, maps)
        first.save(tmp_path / name, save_all=True, append_images=rest, duration=125)
    else:
        encode(tmp_path / name, maps, "mpeg4" if name.endswith("avi") else "libx264")
    imported = read_magicmotion(tmp_path / name, tolerance=1.0)
    assert [item.id for item in imported.objects] == [2, 3]
    loaded = load_maps(tmp_path / name, num_frames=len(maps), height=HEIGHT, width=WIDTH)
    assert (loaded != maps).any(axis=-1).sum() <= 0.2 * maps.any(axis=-1).sum()


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8, bit_rate=8_000_000, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_no_objects(tmp_path: Path):
    write_video(tmp_path / "black", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="frame 0 is black"):
        read_magicmotion(tmp_path / "black")
    with pytest.raises(ValueError, match="no video at"):
        read_magicmotion(tmp_path / "missing.mp4")
