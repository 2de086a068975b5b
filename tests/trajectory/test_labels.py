from __future__ import annotations

import contextlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import Canvas, Trajectory, objects_from_label_png
from flashmotion_jax.trajectory.labels import label_objects

LABELS = np.zeros((10, 20), np.uint8)
LABELS[2:5, 4:10] = 7
LABELS[6:10, 0:5] = 3


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA"])
def test_each_label_is_an_object(tmp_path: Path, mode: str):
    if mode == "P":
        image = Image.fromarray(LABELS)
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    elif mode == "I;16":
        image = Image.fromarray(LABELS.astype(np.uint16))
    else:
        image = Image.fromarray(LABELS).convert(mode)
    image.save(tmp_path / "labels.png")
    objects = objects_from_label_png(tmp_path / "labels.png")
    assert [item.id for item in objects] == [1, 2]
    names = ["#030303", "#070707"] if "RGB" in mode else ["label 3", "label 7"]
    assert [item.name for item in objects] == names
    for item, label in zip(objects, (3, 7), strict=True):
        assert item.mask is not None
        np.testing.assert_array_equal(item.mask.to_array(), label == LABELS)
    assert objects[1].keyframes[0].box == (0.2, 0.2, 0.5, 0.5)
    Trajectory(Canvas(20, 10), 5, 24.0, objects)


def test_wrong_images(tmp_path: Path):
    Image.new("L", (4, 4)).save(tmp_path / "black.png")
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(tmp_path / "gray.png")
    (tmp_path / "text.png").write_text("text")
    for name, message in [
        ("black.png", "0 labels"),
        ("gray.png", "99 labels"),
        ("text.png", "not a readable image"),
        ("missing.png", "no image at"),
    ]:
        with pytest.raises(ValueError, match=message):
            objects_from_label_png(tmp_path / name)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB"])
def test_images_of_many_objects(tmp_path: Path, mode: str):
    labels = 1 + np.kron(np.arange(60).reshape(6, 10), np.ones((9, 9))).astype(np.uint16)
    labels[::9] = labels[:, ::9] = 0
    if mode == "RGB":
        colors = np.stack([labels * 4, labels * 3, 255 - labels], axis=-1).astype(np.uint8)
        image = Image.fromarray(colors * (labels > 0)[..., None].astype(np.uint8))
    else:
        labels[20:22, 20:30] = 255  # void
        image = Image.fromarray(labels if mode == "I;16" else labels.astype(np.uint8))
        image = image.convert(mode) if mode == "P" else image
    image.save(tmp_path / "labels.png")
    with contextlib.nullcontext() if mode == "RGB" else pytest.warns(UserWarning, match="255"):
        objects = objects_from_label_png(tmp_path / "labels.png")
    assert len(objects) == 60 and len({item.rgb for item in objects}) == 60


def test_a_photograph_is_no_label_image(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 200, (64, 64), np.uint8)
    smooth = cv2.GaussianBlur(noise, (9, 9), 0)
    for pixels in (noise, smooth):
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        with pytest.raises(UserError, match=r"labels, expected 1 to 255 that fill even areas"):
            objects_from_label_png(tmp_path / "photo.png")


def two_disks(first, second, background=(0, 0, 0)):
    """RGB disks of radius 40 and 30, which overlap, uint8 [240, 320, 3]."""
    y, x = np.mgrid[:240, :320]
    pixels = np.empty((240, 320, 3), np.uint8)
    pixels[:] = background
    pixels[(y - 100) ** 2 + (x - 120) ** 2 < 40**2] = first
    pixels[(y - 130) ** 2 + (x - 170) ** 2 < 30**2] = second
    return pixels


@pytest.mark.parametrize("filter", ["BILINEAR", "BICUBIC", "LANCZOS", "HAMMING"])
@pytest.mark.parametrize("size", [(160, 120), (107, 80), (480, 360)])
def test_smoothly_resized_labels_are_cleaned(tmp_path: Path, filter: str, size: tuple[int, int]):
    image = Image.fromarray(two_disks((236, 95, 103), (99, 199, 178)))
    image.resize(size, Image.Resampling[filter]).save(tmp_path / "labels.png")
    with pytest.warns(UserWarning, match="mixed labels at edges"):
        objects = objects_from_label_png(tmp_path / "labels.png")
    assert [item.name for item in objects] == ["#63c7b2", "#ec5f67"]
    expected = image.resize(size, Image.Resampling.NEAREST)
    for item, color in zip(objects, [(99, 199, 178), (236, 95, 103)], strict=True):
        truth = (np.asarray(expected) == color).all(axis=-1)
        found = item.mask.to_array()
        assert (truth & found).sum() / (truth | found).sum() > 0.9


def test_smoothly_resized_label_numbers_are_cleaned(tmp_path: Path):
    image = Image.fromarray(two_disks((60,) * 3, (200,) * 3)[..., 0])
    image.resize((160, 120), Image.Resampling.BILINEAR).save(tmp_path / "labels.png")
    with pytest.warns(UserWarning, match="mixed labels at edges"):
        objects = objects_from_label_png(tmp_path / "labels.png")
    assert [item.name for item in objects] == ["label 60", "label 200"]


def test_small_objects_of_a_clean_image_stay(tmp_path: Path):
    labels = two_disks((10,) * 3, (20,) * 3)[..., 0].copy()
    labels[200:202, 300:302] = 15
    Image.fromarray(labels).save(tmp_path / "labels.png")
    objects = objects_from_label_png(tmp_path / "labels.png")
    assert [item.name for item in objects] == ["label 10", "label 15", "label 20"]
    np.testing.assert_array_equal(objects[1].mask.to_array(), labels == 15)


def test_lossy_labels_are_restored(tmp_path: Path):
    pixels = two_disks((236, 95, 103), (99, 199, 178))
    Image.fromarray(pixels).save(tmp_path / "labels.jpg", quality=85)
    with pytest.warns(UserWarning, match="lossy"):
        objects = objects_from_label_png(tmp_path / "labels.jpg")
    assert len(objects) == 2
    areas = sorted(item.mask.to_array().sum() for item in objects)
    assert areas[1] == pytest.approx((pixels[..., 0] == 236).sum(), rel=0.02)


@pytest.mark.parametrize(("mode", "void"), [("L", 255), ("P", 255), ("I;16", 255), ("I;16", 65535)])
def test_void_is_no_object(tmp_path: Path, mode: str, void: int):
    labels = LABELS.astype(np.uint16 if mode == "I;16" else np.uint8)
    labels[:, 15] = void
    image = Image.fromarray(labels)
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(1, 256, 768).tolist())
    image.save(tmp_path / "labels.png")
    with pytest.warns(UserWarning, match=f"label {void} marks pixels of no object"):
        objects = objects_from_label_png(tmp_path / "labels.png")
    assert [item.name for item in objects] == ["label 3", "label 7"]


def test_255_is_an_object_of_binary_masks_and_beside_other_gray_values(tmp_path: Path):
    for values in ([255], [128, 255]):
        labels = np.zeros((12, 12), np.uint8)
        for k, value in enumerate(values):
            labels[4 * k : 4 * k + 3, 2:8] = value
        Image.fromarray(labels).save(tmp_path / "labels.png")
        objects = objects_from_label_png(tmp_path / "labels.png")
        assert [item.name for item in objects] == [f"label {value}" for value in values]


def test_void_color_of_voc_is_no_object(tmp_path: Path):
    pixels = two_disks((128, 0, 0), (224, 224, 192))
    Image.fromarray(pixels).save(tmp_path / "labels.png")
    with pytest.warns(UserWarning, match="#e0e0c0 marks pixels of no object"):
        (item,) = objects_from_label_png(tmp_path / "labels.png")
    assert item.name == "#800000"


@pytest.mark.parametrize("smooth", [False, True])
def test_a_white_background_is_no_object_and_black_then_is_one(tmp_path: Path, smooth: bool):
    image = Image.fromarray(two_disks((200, 0, 0), (0, 0, 0), background=(255, 255, 255)))
    if smooth:
        image = image.resize((160, 120), Image.Resampling.BILINEAR)
    image.save(tmp_path / "labels.png")
    objects, notices = label_objects(tmp_path / "labels.png")
    assert [item.name for item in objects] == ["#c80000", "#000000"]
    assert notices[-1] == "white is the background" and len(notices) == 1 + smooth
    image.convert("L").point(lambda value: 255 * (value > 120)).save(tmp_path / "mask.png")
    (item,), notices = label_objects(tmp_path / "mask.png")
    assert item.name == "label 0" and notices == ("white is the background",)


@pytest.mark.filterwarnings("error")
def test_pixels_of_other_kinds_are_labels(tmp_path: Path):
    for dtype in (np.int32, np.float32):
        Image.fromarray(LABELS.astype(dtype)).save(tmp_path / "labels.tif")
        objects = objects_from_label_png(tmp_path / "labels.tif")
        assert [item.name for item in objects] == ["label 3", "label 7"]
    Image.fromarray(np.where(LABELS, 0.9, 0.1).astype(np.float32)).save(tmp_path / "soft.tif")
    (item,) = objects_from_label_png(tmp_path / "soft.tif")
    np.testing.assert_array_equal(item.mask.to_array(), LABELS > 0)
    for wrong in (-1.0, np.nan, 7.5, 1e12):
        Image.fromarray(np.full((4, 4), wrong, np.float32)).save(tmp_path / "wrong.tif")
        with pytest.raises(ValueError, match="expected whole numbers"):
            objects_from_label_png(tmp_path / "wrong.tif")


def test_a_palette_that_names_black_elsewhere_is_one_of_colors(tmp_path: Path):
    indices = (LABELS == 0) * np.uint8(1) + (LABELS == 3) * np.uint8(2)
    image = Image.fromarray(indices)
    image.putpalette([255, 0, 0, 0, 0, 0, 0, 0, 255])
    image.save(tmp_path / "labels.png")
    objects = objects_from_label_png(tmp_path / "labels.png")
    assert [item.name for item in objects] == ["#0000ff", "#ff0000"]
