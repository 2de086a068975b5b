"""Drawn clips as examples, against the same clips exported and read."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.data.examples import open_examples
from flashmotion_jax.data.sprites import PALETTE, Sprites, SpritesConfig, export
from flashmotion_jax.runtime.errors import UserError

SIZE = {"num_frames": 5, "height": 32, "width": 48}
COUNT = 4


def opened(data, root="", **changes):
    options = {"data_root": str(root), "csv": "MagicData.csv", "num_clips": COUNT}
    return open_examples(data, **options | SIZE | changes, resize="stretch")


def test_drawn_clips_are_the_exported_ones(tmp_path):
    export(Sprites(COUNT, config=SpritesConfig(**SIZE)), tmp_path)
    read, drawn = opened("magicdata", tmp_path), opened("sprites")
    assert len(read) == len(drawn) == COUNT
    assert tuple(read.row_numbers) == tuple(drawn.row_numbers)
    for index in range(COUNT):
        for name, expected in vars(read[index]).items():
            np.testing.assert_array_equal(getattr(drawn[index], name), expected, err_msg=name)


def test_the_fingerprint_names_the_clips():
    one = opened("sprites")
    assert one.fingerprint == opened("sprites").fingerprint
    for changes in ({"num_clips": COUNT + 1}, {"height": 64}):
        other = opened("sprites", **changes)
        assert other.fingerprint != one.fingerprint and repr(other) != repr(one)


def test_maps_may_have_the_colors_of_the_first_frame():
    """Near the colors that sprites are drawn with, in masks and in boxes alike."""
    palette, image = opened("sprites"), opened("sprites", map_colors="image")
    assert palette.fingerprint != image.fingerprint
    clips = Sprites(COUNT, config=SpritesConfig(**SIZE))
    for index in range(COUNT):
        clip, example = clips[index], image[index]
        assert (example.masks.any(-1) == palette[index].masks.any(-1)).all()
        assert (example.boxes.any(-1) == palette[index].boxes.any(-1)).all()
        for color, mask_HW in zip(clip.colors, clip.masks_KFHW[:, 0], strict=True):
            if mask_HW.any():
                (seen,) = np.unique(example.masks[0][mask_HW], axis=0)
                shade = np.float64(PALETTE[color])
                # A texture only darkens; at the edge a little of the background is mixed in.
                cosine = seen @ shade / np.linalg.norm(seen) / np.linalg.norm(shade)
                assert cosine > 0.97
                assert (example.boxes[1:] == seen).all(-1).any()


def test_maps_of_a_folder_have_the_colors_that_they_have(tmp_path):
    with pytest.raises(UserError, match="map_colors='image' of the model"):
        opened("magicdata", tmp_path, map_colors="image")


def test_wrong_sizes_raise():
    with pytest.raises(UserError, match="height=16"):
        opened("sprites", height=16)
