from __future__ import annotations

import io

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from flashmotion_jax.trajectory import PALETTE, palette_color
from flashmotion_jax.trajectory.quantize import exact_maps, find_colors, label_frames


def discs(*colors: tuple[int, int, int]) -> np.ndarray:
    frame = np.zeros((120, 60 * len(colors) + 20, 3), np.uint8)
    for k, color in enumerate(colors):
        cv2.circle(frame, (40 + 60 * k, 60), 20 + k, color, -1)
    return frame


def lossy(frame: np.ndarray, quality: int = 90) -> np.ndarray:
    """JPEG loses what an H.264 frame loses: 8 x 8 blocks, color at half the resolution."""
    _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1]


@pytest.mark.parametrize("ids", [(1, 2), (3, 4, 5), (6, 9, 13), (14, 16, 17, 18), (7, 0, 20)])
def test_a_lossy_frame_comes_back_in_its_exact_colors(ids: tuple[int, ...]):
    original = discs(*[tuple(PALETTE[i].tolist()) for i in ids])
    noisy = lossy(original)
    assert len(np.unique(noisy.reshape(-1, 3), axis=0)) > 100
    colors = {tuple(color) for color in find_colors(noisy).tolist()}
    assert colors == {tuple(PALETTE[i].tolist()) for i in ids}
    restored = exact_maps(noisy[None])[0]
    wrong = (restored != original).any(axis=-1)
    assert wrong.sum() < 0.05 * original.any(axis=-1).sum()
    # What is wrong lies at the edges.
    inside = cv2.erode(original.max(axis=-1), np.ones((7, 7), np.uint8)) > 0
    assert not wrong[inside].any()


def test_colors_outside_the_palette_stay_and_large_areas_come_first():
    frame = discs((128, 0, 0), (10, 200, 90))
    assert find_colors(frame).tolist() == [[10, 200, 90], [128, 0, 0]]
    assert find_colors(np.zeros_like(frame)).shape == (0, 3)


def test_exact_frames_are_taken_as_they_are():
    frames = np.stack([discs((128, 32, 32), (128, 80, 80))] * 2)
    frames[1] = 0
    frames[1, 5, 7] = 128, 32, 32
    np.testing.assert_array_equal(exact_maps(frames), frames)
    odd = frames[:, 1:, 3:]
    np.testing.assert_array_equal(exact_maps(odd), odd)


def test_tiny_patches_of_lossy_frames_are_dropped():
    frame = discs((128, 32, 32))
    speckled = lossy(frame)
    speckled[100, 5:8] = 128, 32, 32
    labels = label_frames(speckled[None], np.array([[128, 32, 32]], np.uint8))[0]
    count, components = cv2.connectedComponents(labels, connectivity=8)
    assert count == 2
    assert components[60, 40] == 1


def test_patches_are_opencvs_components():
    rng = np.random.default_rng(0)
    colors = np.array([[128, 32, 32], [128, 80, 80]], np.uint8)
    table = np.concatenate([np.zeros((1, 3), np.uint8), colors])
    for _ in range(20):
        expected = rng.choice(3, (60, 50), p=[0.5, 0.25, 0.25]).astype(np.uint8)
        expected[0, 0] = 0
        frame = table[expected]
        # One pixel a little off makes the frame a lossy one.
        frame[0, 0] = 1
        for label in (1, 2):
            same = (expected == label).astype(np.uint8)
            _, components, stats, _ = cv2.connectedComponentsWithStats(same, connectivity=8)
            small = stats[components, cv2.CC_STAT_AREA] < 4
            expected[(same > 0) & small] = 0
        np.testing.assert_array_equal(label_frames(frame[None], colors)[0], expected)


def test_a_black_first_frame_is_an_error():
    with pytest.raises(ValueError, match="frame 0 is black"):
        exact_maps(np.zeros((2, 8, 8, 3), np.uint8))


def x264(frames: np.ndarray, crf: int, matrix: Colorspace | None) -> np.ndarray:
    """Encodes and decodes a video; a matrix shifts its colors, as the file does not name it."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": str(crf)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=matrix)))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def ellipses(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, list[int]]:
    """One to seven ellipses in colors of the palette, each in its own twelfth of the frame."""
    ids = rng.permutation(21)[: rng.integers(1, 8)].tolist()
    frame = np.zeros((height, width, 3), np.uint8)
    for id, cell in zip(ids, rng.permutation(12).tolist(), strict=False):
        row, column = divmod(cell, 4)
        center = (width // 8 + column * width // 4, height // 6 + row * height // 3)
        axes = (rng.uniform(0.03, 0.12, 2) * [width, height]).astype(int).tolist()
        cv2.ellipse(frame, center, axes, 0, 0, 360, PALETTE[id].tolist(), -1)
    return frame, ids


def check_lossy_colors(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    frame, ids = ellipses(rng, height, width)
    expected = sorted(PALETTE[ids].tolist())
    for crf in (18, 23, 28):
        for matrix in (None, Colorspace.ITU709):
            decoded = x264(np.stack([frame] * 3), crf, matrix)
            found = sorted(find_colors(decoded[0]).tolist())
            assert found == expected, f"seed {seed}, crf {crf}, {matrix}"


@pytest.mark.parametrize("seed", range(3))
def test_x264_keeps_the_number_and_the_colors_of_objects(seed: int):
    check_lossy_colors(seed, 256, 384)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(256, 384), (480, 720), (704, 1280)])
def test_x264_keeps_the_number_and_the_colors_of_many_random_objects(height: int, width: int):
    for seed in range(20):
        check_lossy_colors(100 + seed, height, width)


def test_colors_as_an_mpeg4_file_of_another_project_has_them():
    """Medians of moon_castle_sparse_box.mp4: one is 10 from the palette's in some channel."""
    frame = discs((124, 54, 21), (125, 27, 26), (122, 74, 70))
    noise = np.random.default_rng(0).integers(-1, 2, frame.shape)
    noisy = np.clip(frame + noise, 0, 255).astype(np.uint8)
    assert sorted(find_colors(noisy).tolist()) == sorted(PALETTE[[1, 2, 3]].tolist())


def test_exact_colors_near_the_palette_stay_different_objects():
    frame = discs((128, 32, 32), (128, 32, 34), (20, 20, 12))
    assert len(find_colors(frame)) == 3
    np.testing.assert_array_equal(exact_maps(frame[None])[0], frame)


def test_more_objects_than_the_palette_has_colors():
    frame = np.zeros((200, 320, 3), np.uint8)
    for k in range(300):
        y, x = divmod(k, 30)
        frame[20 * y + 2 : 20 * y + 12, 10 * x + 2 : 10 * x + 10] = palette_color(k + 1)
    assert len(find_colors(frame)) == 300
    np.testing.assert_array_equal(exact_maps(frame[None])[0], frame)
