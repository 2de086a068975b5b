from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.data.sprites import (
    VOCABULARY,
    Sprites,
    is_of_sprites,
    looks_like_sprites,
)
from flashmotion_jax.media.images import read_image


def photograph(seed):
    """Smooth regions of any color with fine texture, as in a photograph: uint8 `[64, 64, 3]`."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    regions = np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC), np.float64)
    return np.clip(regions + rng.normal(0, 12, (64, 64, 1)), 0, 255).astype(np.uint8)


def drawing(background, disc):
    pixels = np.full((64, 64, 3), background, np.uint8)
    y, x = np.mgrid[:64, :64]
    pixels[(y - 30) ** 2 + (x - 30) ** 2 < 12**2] = disc
    return pixels


def test_frames_are_recognized():
    clips = Sprites(40, seed=3)
    assert all(looks_like_sprites(clips[i].video[frame]) for i in range(40) for frame in (0, 16))


def test_a_frame_stored_as_jpeg_is_recognized(tmp_path):
    file = tmp_path / "frame.jpg"
    Image.fromarray(Sprites(1, seed=3)[0].video[0]).save(file, quality=80)
    assert looks_like_sprites(read_image(file))


@pytest.mark.parametrize("disc", [(225, 35, 40), (255, 0, 0), (0, 0, 255), (40, 180, 60)])
@pytest.mark.parametrize("background", [0, 60, 128, 255])
def test_a_drawing_of_a_shape_is_recognized(background, disc):
    assert looks_like_sprites(drawing(background, disc))


def test_photographs_are_not_recognized():
    assert not any(looks_like_sprites(photograph(seed)) for seed in range(20))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert not looks_like_sprites(noise)
    assert not looks_like_sprites(drawing((90, 160, 255), (225, 35, 40)))  # under a blue sky


def test_models_are_recognized_by_their_words():
    assert is_of_sprites(VOCABULARY) and is_of_sprites([*VOCABULARY, "dog"])
    assert not is_of_sprites(VOCABULARY[1:]) and not is_of_sprites(None)
