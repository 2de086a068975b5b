from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.media import images, labels
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import Limits, limited
from helpers.media_frames import noisy_frames, smooth_frames


def test_read_image_turns_by_exif(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 clockwise to show"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), np.rot90(pixels, -1))


def test_read_image_puts_alpha_over_black(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0] = [200, 100, 50, 255]
    rgba[1] = [200, 100, 50, 0]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = images.read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [200, 100, 50] and image[1, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535)])
def test_read_image_widens_grayscale(tmp_path, dtype, full):
    gray = (np.array([[0.0, 0.5], [0.75, 1.0]]) * full).astype(dtype)
    Image.fromarray(gray).save(tmp_path / "a.png")
    image = images.read_image(tmp_path / "a.png")
    assert image.shape == (2, 2, 3) and image.dtype == np.uint8
    assert image[..., 1].tolist() == [[0, 127], [191, 255]]


def test_floats_from_0_to_1_are_scaled_and_other_wide_pixels_refused(tmp_path):
    gray = np.array([[0.0, 0.5], [0.75, 1.0]], np.float32)
    Image.fromarray(gray).save(tmp_path / "a.tif")
    assert images.read_image(tmp_path / "a.tif")[..., 2].tolist() == [[0, 128], [191, 255]]
    for wrong in (gray * 255, gray - 1, gray * np.nan, (gray * 2**20).astype(np.int32)):
        Image.fromarray(wrong).save(tmp_path / "wrong.tif")
        with pytest.raises(UserError, match=r"wrong\.tif has .* whose brightness is unknown"):
            images.read_image(tmp_path / "wrong.tif")


def test_large_images_are_refused_by_their_header(tmp_path):
    Image.new("1", (400, 300)).save(tmp_path / "a.png")
    with limited(Limits(image_pixels=120_000, video_pixels=1)):
        assert images.read_image(tmp_path / "a.png").shape == (300, 400, 3)
    for read in (images.read_image, labels.read_labels, labels.read_mask):
        few = limited(Limits(image_pixels=119_999, video_pixels=1))
        with few, pytest.raises(UserError, match="300 x 400 pixels"):
            read(tmp_path / "a.png")


def test_images_that_run_programs_are_refused(tmp_path):
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(UserError, match="not a readable image"):
        images.read_image(tmp_path / "a.png")


def test_heic_is_read_upright_with_the_extra(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = smooth_frames(count=1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    heif = pillow_heif.from_pillow(Image.fromarray(pixels))
    heif.save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    read = images.read_image(tmp_path / "a.heic")
    expected = np.rot90(pixels, -1)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 4


def test_heic_without_the_extra_names_it(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(UserError, match=r"pip install 'flashmotion_jax\[heic\]'"):
        images.read_image(tmp_path / "a.heic")


@pytest.mark.parametrize("name", ["missing.png", "text.png", "cut.png"])
def test_unreadable_image_is_a_value_error_that_names_it(tmp_path, name):
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(noisy_frames()[0]).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    with pytest.raises(ValueError, match=name):
        images.read_image(tmp_path / name)


# (height, width) -> what upstream's own function answers.
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


@pytest.mark.parametrize(("source", "expected"), UPSTREAM_SIZES.items())
def test_best_size_is_upstreams(source, expected):
    assert images.best_size(*source, 704 * 1280, (32, 32)) == expected


@pytest.mark.parametrize("multiples", [(8, 8), (8, 16), (16, 8)])
@pytest.mark.parametrize("source", [(300, 200), (200, 300), (64, 64)])
def test_best_size_obeys_area_and_multiples(source, multiples):
    height, width = images.best_size(*source, 64 * 64, multiples)
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
    assert images.best_size(*source, max_area, multiples) == expected


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
        images.best_size(*arguments)


def test_cover_geometry_centers_the_longer_side():
    assert images.cover_geometry((100, 200), (50, 60)) == (50, 100, 0, 20)
    assert images.cover_geometry((200, 100), (60, 50)) == (100, 50, 20, 0)
    assert images.cover_geometry((427, 640), (704, 1280)) == (854, 1280, 75, 0)


@pytest.mark.parametrize("source_hw", [(427, 640), (333, 517), (1079, 1921), (7, 5)])
def test_cover_geometry_always_covers(source_hw):
    for target_hw in [(704, 1280), (1280, 704), (32, 32), (928, 960)]:
        resized_height, resized_width, top, left = images.cover_geometry(source_hw, target_hw)
        assert 0 <= top <= resized_height - target_hw[0]
        assert 0 <= left <= resized_width - target_hw[1]


def test_cover_crop_of_a_fitting_size_changes_nothing():
    frames = noisy_frames()
    np.testing.assert_array_equal(images.cover_crop(frames, 33, 47), frames)


def test_cover_crop_without_resizing_is_a_slice():
    image = noisy_frames(height=20, width=30)[0]
    np.testing.assert_array_equal(images.cover_crop(image, 20, 16), image[:, 7:23])


def test_nearest_cover_crop_repeats_pixels_as_opencv_does():
    frames = noisy_frames(height=10, width=16)
    expected = [
        cv2.resize(frame, (48, 30), interpolation=cv2.INTER_NEAREST)[:, 4:44] for frame in frames
    ]
    np.testing.assert_array_equal(images.cover_crop(frames, 30, 40, nearest=True), expected)


def test_lanczos_cover_crop_keeps_a_smooth_picture_in_place():
    frame = smooth_frames(count=1, height=96, width=160)[0]
    expected = cv2.resize(frame, (80, 48), interpolation=cv2.INTER_AREA)[:, 8:72]
    assert np.abs(images.cover_crop(frame, 48, 64).astype(int) - expected).mean() < 1.0


@pytest.mark.parametrize("frames", [np.zeros((4, 4, 3)), np.zeros((2, 4, 4, 1), np.uint8)])
def test_cover_crop_refuses_other_arrays(frames):
    with pytest.raises(ValueError, match="expected uint8"):
        images.cover_crop(frames, 8, 8)


def test_floats_span_minus_one_to_one_and_round_trip():
    pixels = np.arange(256, dtype=np.uint8)
    floats = images.to_float(pixels)
    assert floats.dtype == np.float32 and floats[0] == -1.0 and floats[255] == 1.0
    np.testing.assert_array_equal(images.to_uint8(floats), pixels)


def test_to_uint8_rounds_and_clips():
    assert images.to_uint8(np.float32([-2.0, -0.997, 0.0, 2.0])).tolist() == [0, 0, 128, 255]
