from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.trajectory import Mask
from flashmotion_jax.trajectory.masks import read_mask_png


def test_counts_are_cocos():
    # The example of COCO's own documentation: columns first, starting outside.
    mask = np.array([[0, 1, 1], [0, 1, 0]])
    assert Mask.from_array(mask) == Mask((2, 3), (2, 3, 1))
    assert Mask.from_array(np.ones((2, 2))).counts == (0, 4)
    assert Mask.from_array(np.zeros((2, 2))).counts == (4,)


def test_round_trip():
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (1, 7), (5, 3), (40, 30)]:
        mask = rng.random((height, width)) > 0.5
        np.testing.assert_array_equal(Mask.from_array(mask).to_array(), mask)


def test_box_is_tight_and_normalized():
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:10] = True
    assert Mask.from_array(mask).box() == (0.2, 0.2, 0.5, 0.5)
    with pytest.raises(ValueError, match="empty"):
        Mask.from_array(np.zeros((2, 2))).box()


def test_png_is_inside_where_neither_black_nor_transparent(tmp_path: Path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, 0] = 0, 0, 0, 255
    pixels[0, 1] = 9, 0, 0, 255
    pixels[0, 2] = 9, 9, 9, 0
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert read_mask_png(tmp_path, "mask.png").to_array().tolist() == [[False, True, False]]


INSIDE = np.zeros((24, 32), bool)
INSIDE[4:14, 6:20] = True


def test_masks_of_every_kind_of_pixel(tmp_path: Path):
    alpha = np.zeros((*INSIDE.shape, 4), np.uint8)
    alpha[..., 3] = INSIDE * 255
    palette = Image.fromarray((~INSIDE).astype(np.uint8))
    palette.putpalette([255, 255, 255, 0, 0, 0])
    images = {
        "16 bits.png": Image.fromarray(INSIDE * np.uint16(7)),
        "16 bits.tif": Image.fromarray(INSIDE * np.uint16(7)),
        "32 bits.tif": Image.fromarray(INSIDE * np.int32(3)),
        "float.tif": Image.fromarray(INSIDE * np.float32(0.9) + np.float32(0.05)),
        "stencil.png": Image.fromarray(alpha),
        "color.png": Image.fromarray(INSIDE[..., None] * np.uint8([9, 0, 0])),
        "1 bit.png": Image.fromarray(INSIDE),
        "palette.png": palette,
        "gray.jpg": Image.fromarray(INSIDE * np.uint8(255)),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
        np.testing.assert_array_equal(read_mask_png(tmp_path, name).to_array(), INSIDE, name)


def test_png_must_stay_in_the_folder(tmp_path: Path):
    inside = tmp_path / "inside"
    inside.mkdir()
    Image.new("L", (2, 2), 255).save(tmp_path / "secret.png")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        with pytest.raises(ValueError, match="leaves the trajectory's folder"):
            read_mask_png(inside, name)


def test_unreadable_png(tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    for name in ("broken.png", "missing.png"):
        with pytest.raises(ValueError, match=name):
            read_mask_png(tmp_path, name)
