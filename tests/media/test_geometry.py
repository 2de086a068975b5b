from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.config import Grid, SamplingConfig
from flashmotion_jax.media import geometry
from flashmotion_jax.media.geometry import Fit, fit_frames, video_size
from helpers.media_frames import noisy_frames, smooth_frames

UPSTREAM_SIZES = {
    (704, 1280): (704, 1280),
    (1280, 704): (1280, 704),
    (1080, 1920): (704, 1248),
    (1920, 1080): (1248, 704),
    (1024, 1024): (928, 960),
    (480, 640): (800, 1088),
    (2848, 4272): (768, 1152),
    (100, 1000): (288, 2976),
    (333, 517): (768, 1152),
}

#: Sizes (height, width) of true videos, from field case G1, and of the video for each.
SIZES = [
    ((480, 854), (704, 1248), "crop"),
    ((600, 800), (800, 1120), "crop"),
    ((1024, 1024), (928, 960), "crop"),
    ((1080, 1920), (704, 1280), "crop"),
    ((480, 854), (704, 1280), "stretch"),
    ((1024, 1024), (704, 1280), "stretch"),
    ((64, 64), (704, 1280), "crop"),
]


def placed(source, target):
    fit = Fit.of(source, target)
    return fit.resized, fit.offset


@pytest.mark.parametrize(("source", "expected"), UPSTREAM_SIZES.items())
def test_best_size_is_upstreams(source, expected):
    assert geometry.best_size(*source, 704 * 1280, (32, 32)) == expected


@pytest.mark.parametrize("multiples", [(8, 8), (8, 16), (16, 8)])
@pytest.mark.parametrize("source", [(300, 200), (200, 300), (64, 64)])
def test_best_size_obeys_area_and_multiples(source, multiples):
    height, width = geometry.best_size(*source, 64 * 64, multiples)
    assert height % multiples[0] == width % multiples[1] == 0 and height * width <= 64 * 64
    assert (height > width) == (source[0] > source[1])


@pytest.mark.parametrize(
    ("source", "max_area", "multiples", "expected"),
    [
        ((200, 300), 64 * 64, (8, 16), (48, 80)),
        ((480, 640), 64 * 64, (16, 8), (48, 72)),
        ((1080, 1920), 704 * 1280, (16, 64), (704, 1280)),
        ((1920, 1080), 704 * 1280, (16, 64), (1264, 704)),
    ],
)
def test_best_size_of_unequal_multiples_is_upstreams(source, max_area, multiples, expected):
    assert geometry.best_size(*source, max_area, multiples) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 5, 704 * 1280, (32, 32)),
        (10, 10, 100, (32, 32)),
        (1, 100_000, 704 * 1280, (32, 32)),
        (10, 10, 4096, (8, 0)),
    ],
)
def test_best_size_raises_if_no_size_fits(arguments):
    with pytest.raises(ValueError, match=r"expected|crop it"):
        geometry.best_size(*arguments)


def test_cropping_centers_the_longer_side():
    assert placed((100, 200), (50, 60)) == ((50, 100), (0, 20))
    assert placed((200, 100), (60, 50)) == ((100, 50), (20, 0))
    assert placed((427, 640), (704, 1280)) == ((854, 1280), (75, 0))


@pytest.mark.parametrize("source_hw", [(427, 640), (333, 517), (1079, 1921), (7, 5)])
def test_cropping_always_covers(source_hw):
    for target_hw in [(704, 1280), (1280, 704), (32, 32), (928, 960)]:
        (resized_height, resized_width), (top, left) = placed(source_hw, target_hw)
        assert 0 <= top <= resized_height - target_hw[0]
        assert 0 <= left <= resized_width - target_hw[1]


def test_cropping_of_a_fitting_size_changes_nothing():
    frames = noisy_frames()
    np.testing.assert_array_equal(fit_frames(frames, 33, 47), frames)


def test_cropping_without_resizing_is_a_slice():
    image = noisy_frames(height=20, width=30)[0]
    np.testing.assert_array_equal(fit_frames(image, 20, 16), image[:, 7:23])


def test_nearest_resizing_repeats_pixels_as_opencv_does():
    frames = noisy_frames(height=10, width=16)
    expected = [
        cv2.resize(frame, (48, 30), interpolation=cv2.INTER_NEAREST)[:, 4:44] for frame in frames
    ]
    np.testing.assert_array_equal(fit_frames(frames, 30, 40, nearest=True), expected)


def test_lanczos_resizing_keeps_a_smooth_picture_in_place():
    frame = smooth_frames(count=1, height=96, width=160)[0]
    expected = cv2.resize(frame, (80, 48), interpolation=cv2.INTER_AREA)[:, 8:72]
    assert np.abs(fit_frames(frame, 48, 64).astype(int) - expected).mean() < 1.0


@pytest.mark.parametrize("frames", [np.zeros((4, 4, 3)), np.zeros((2, 4, 4, 1), np.uint8)])
def test_fitting_refuses_other_arrays(frames):
    with pytest.raises(ValueError, match="expected uint8"):
        fit_frames(frames, 8, 8)


def test_stretching_is_pillows_lanczos_as_in_the_base_code():
    frames = noisy_frames(height=30, width=50)
    expected = [np.asarray(Image.fromarray(one).resize((64, 40), Image.LANCZOS)) for one in frames]
    np.testing.assert_array_equal(fit_frames(frames, 40, 64, "stretch"), expected)


@pytest.mark.parametrize(("source", "target", "resize"), SIZES)
def test_boxes_masks_and_points_stay_on_the_picture(source, target, resize):
    fit = Fit.of(source, target, resize)
    y0, y1, x0, x1 = (
        int(f * side) for side, fs in zip(source, ((0.4, 0.6), (0.3, 0.5)), strict=True) for f in fs
    )
    mask = np.zeros(source, bool)
    mask[y0:y1, x0:x1] = True
    picture = np.repeat(mask[..., None], 3, axis=-1).astype(np.uint8) * 255
    of_picture = fit.apply(picture, nearest=True)[..., 0] > 0
    of_mask = fit.masks(mask)
    assert (of_picture != of_mask).sum() <= of_mask.sum() / 50  # Pillow rounds, we take centers
    box = np.array([x0 / source[1], y0 / source[0], x1 / source[1], y1 / source[0]])
    rows, columns = (np.flatnonzero(of_mask.any(axis=axis)) for axis in (1, 0))
    edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(fit.boxes(box), edges, atol=1)
    corners = fit.points_back(fit.boxes(box).reshape(2, 2))
    np.testing.assert_allclose(corners, [[x0, y0], [x1, y1]], atol=1e-9)


@pytest.mark.parametrize(("source", "target", "resize"), SIZES)
def test_masks_of_a_perfect_video_are_the_true_ones(source, target, resize):
    """Field case G1: the masks of a perfect video are the true ones."""
    fit = Fit.of(source, target, resize)
    rows, columns = np.indices(source)
    masks = np.stack(
        [
            np.hypot(rows - source[0] / 2, columns - source[1] / 2) < min(source) / 4,
            (columns < source[1] // 2) & (rows % (source[0] // 4) < source[0] // 8),
            np.random.default_rng(0).random(source) < 0.5,
        ]
    )
    true, found = fit.compared(masks, fit.masks(masks))
    np.testing.assert_array_equal(found, true)
    x0, y0, x1, y1 = fit.visible * np.array(source[::-1] * 2)
    for axis, visible in enumerate([y1 - y0, x1 - x0]):
        fewer = min(visible, target[axis])
        assert abs(true.shape[1 + axis] - fewer) <= 1


def test_masks_of_another_size_show_the_whole_video():
    fit = Fit.of((480, 854), (704, 1248))
    mask = np.zeros((480, 854), bool)
    mask[100:300, 200:500] = True
    half = fit.masks(mask)[::2, ::2]
    true, found = fit.compared(mask, half)
    assert (found & true).sum() / (found | true).sum() > 0.98


@pytest.mark.parametrize(
    ("size_from", "image", "expected"),
    [
        ("model", (1024, 1024), (704, 1280)),
        ("model", None, (704, 1280)),
        ("image", None, (704, 1280)),
        ("image", (1024, 1024), (928, 960)),
        ("image", (480, 854), (704, 1248)),
    ],
)
def test_size_of_the_video(size_from, image, expected):
    sampling = SamplingConfig(size_from=size_from)
    assert video_size(image, sampling, Grid(32, 32, 4)) == expected


def test_sizes_below_one_pixel_raise():
    with pytest.raises(ValueError, match="at least 1"):
        Fit.of((0, 5), (32, 32))
