from __future__ import annotations

import colorsys

import pytest

from flashmotion_jax.data.sprites import PALETTE, SpritesConfig


def hue(rgb):
    return 360 * colorsys.rgb_to_hsv(*(value / 255 for value in rgb))[0]


def test_colors_are_saturated_and_their_hues_apart():
    hues = sorted(hue(rgb) for rgb in PALETTE.values())
    gaps = [b - a for a, b in zip(hues, [*hues[1:], hues[0] + 360], strict=True)]
    assert min(gaps) > 20
    for rgb in PALETTE.values():
        assert (max(rgb) - min(rgb)) / max(rgb) > 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 1}, "num_frames=1; expected a whole number from 2 to 10000"),
        ({"height": 31}, "height=31; expected a whole number from 32 to 4096"),
        ({"width": 64.0}, "width=64.0; expected a whole number"),
        ({"fps": 0}, "fps=0; expected a whole number from 1 to 1000"),
        ({"min_objects": 0}, "min_objects=0; expected a whole number from 1 to 6"),
        ({"min_objects": 3, "max_objects": 2}, "max_objects=2; expected a whole number from 3"),
        ({"max_objects": 9}, "max_objects=9; expected a whole number from 1 to 6"),
    ],
)
def test_sizes_out_of_range_say_what_was_expected(changes, message):
    with pytest.raises(ValueError, match=message):
        SpritesConfig(**changes)
