from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.media import images, labels
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import EDITOR, limited
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
    with limited(replace(EDITOR, image_pixels=120_000)):
        assert images.read_image(tmp_path / "a.png").shape == (300, 400, 3)
    for read in (images.read_image, labels.read_labels, labels.read_mask):
        few = limited(replace(EDITOR, image_pixels=119_999))
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


def test_floats_span_minus_one_to_one_and_round_trip():
    pixels = np.arange(256, dtype=np.uint8)
    floats = images.to_float(pixels)
    assert floats.dtype == np.float32 and floats[0] == -1.0 and floats[255] == 1.0
    np.testing.assert_array_equal(images.to_uint8(floats), pixels)


def test_to_uint8_rounds_and_clips():
    assert images.to_uint8(np.float32([-2.0, -0.997, 0.0, 2.0])).tolist() == [0, 0, 128, 255]
