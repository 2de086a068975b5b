"""Drawn clips as examples, against the same clips exported and read."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.data.examples import open_examples
from flashmotion_jax.data.sprites import Sprites, SpritesConfig, export
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


def test_wrong_sizes_are_refused():
    with pytest.raises(UserError, match="height=16"):
        opened("sprites", height=16)
