from __future__ import annotations

import cv2
import numpy as np
import pytest

from flashmotion_jax.trajectory import PALETTE
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
