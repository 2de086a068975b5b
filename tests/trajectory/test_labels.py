from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.trajectory import Canvas, Trajectory, objects_from_label_png

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
        ("missing.png", "not a readable image"),
    ]:
        with pytest.raises(ValueError, match=message):
            objects_from_label_png(tmp_path / name)
