from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.evaluation.features.resizing import Resize

SIZES = [(40, 70), (31, 17), (64, 64), (90, 200)]


def frame(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_bilinear_matches_torch(size):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(frame(*size)).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(x, (48, 48), mode="bilinear", align_corners=False)
    found = Resize(48)(frame(*size))
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0).numpy(), atol=5e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_antialiasing_matches_pillow(size, kernel):
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[kernel]
    source = frame(*size)
    channels = [Image.fromarray(source[..., c].astype(np.float32)) for c in range(3)]
    expected = np.stack([np.asarray(one.resize((48, 48), how)) for one in channels], axis=-1)
    found = Resize(48, kernel, antialias=True)(source)
    if kernel == "bicubic":
        expected = expected.clip(0, 255)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_pixels_as_points_match_tensorflow_1():
    # TF 1 without align_corners samples at i * old / new and repeats the last pixel.
    source = np.repeat(np.arange(4, dtype=np.uint8)[:, None] * 10, 4, axis=1)[..., None]
    found = Resize(8, half_pixel=False)(source.repeat(3, axis=2))
    np.testing.assert_allclose(found[:, 3, 0], [0, 5, 10, 15, 20, 25, 30, 30])


@pytest.mark.parametrize("size", SIZES)
def test_center_crop_after_resizing_the_shorter_side(size):
    torch = pytest.importorskip("torch")
    height, width = size
    scale = 32 / min(size)
    target = (32, int(width * scale + 1e-9)) if height <= width else (int(height * scale), 32)
    x = torch.from_numpy(frame(*size)).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.interpolate(x, target, mode="bilinear", align_corners=False)
    top, left = (target[0] - 32) // 2, (target[1] - 32) // 2
    expected = x[0, :, top : top + 32, left : left + 32].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(Resize(32, crop="center")(frame(*size)), expected, atol=5e-3)


def test_the_same_size_changes_nothing():
    source = frame(48, 48)
    for resize in (Resize(48), Resize(48, "bicubic", True), Resize(48, half_pixel=False)):
        np.testing.assert_allclose(resize(source), source, atol=1e-4)


def test_other_shapes_raise():
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\]"):
        Resize(48)(np.zeros((4, 4, 3)))
