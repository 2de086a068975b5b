from __future__ import annotations

import re

import numpy as np
import pytest

from flashmotion_jax.data.sprites import VOCABULARY, Sprites, describe
from flashmotion_jax.data.sprites.captions import NAMED_SPRITES

CLIPS = list(Sprites(120, seed=5))
#: Unit vector of each direction, y downwards.
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def sentences(caption):
    """What is said of each sprite, and of the camera or None."""
    sprites, _, camera = caption.partition("; ")
    named = [part for part in sprites.split(", ") if part != "and others"]
    return named, camera or None


def test_captions_hold_no_other_word():
    source = Sprites(500, seed=1)
    words = set()
    for index in range(500):
        caption = describe(source.scene(index))
        assert re.fullmatch(r"[a-z]+(?:[,;]? [a-z]+)*", caption)
        words.update(re.findall(r"[a-z]+", caption))
    assert words <= set(VOCABULARY)
    assert len(set(VOCABULARY) - words) <= 1
    assert list(VOCABULARY) == sorted(set(VOCABULARY))


def test_captions_name_the_first_sprites_in_their_order():
    for clip in CLIPS:
        named, _ = sentences(clip.caption)
        assert len(named) == min(len(clip.colors), NAMED_SPRITES)
        assert clip.caption.count("and others") == (len(clip.colors) > NAMED_SPRITES)
        for text, item in zip(named, clip.trajectory.objects, strict=False):
            assert re.match(rf"an? {item.name} ", text)
            assert text.startswith("an ") == (item.name[0] in "aeiou")


def test_said_directions_are_those_of_the_boxes():
    checked = 0
    for clip in CLIPS:
        named, _ = sentences(clip.caption)
        middles_KF2 = (clip.boxes_KF4[..., :2] + clip.boxes_KF4[..., 2:]) * 32
        for text, middle_F2 in zip(named, middles_KF2, strict=False):
            way_2 = middle_F2[-1] - middle_F2[0]
            if "moves around" in text:
                assert np.hypot(*way_2) < 8
            elif "moves" in text:
                said = [DIRECTIONS[word] for word in re.findall("left|right|up|down", text)]
                cosine = np.sum(said, axis=0) @ way_2 / np.hypot(*way_2) / len(said) ** 0.5
                assert len(said) in (1, 2)
                # Sectors of 45 degrees, and a turning outline's middle is not its center.
                assert cosine > np.cos(np.deg2rad(35))
                checked += 1
    assert checked > 150


def test_said_entries_and_exits_are_those_of_the_masks():
    checked = 0
    for clip in CLIPS + list(Sprites(60, seed=9, num_objects=3)):
        named, _ = sentences(clip.caption)
        for text, masks_FHW, boxes_F4 in zip(named, clip.masks_KFHW, clip.boxes_KF4, strict=False):
            seen_F = masks_FHW.any(axis=(1, 2))
            assert seen_F.any()
            for verb, frame in (("enters from", 0), ("leaves at", -1)):
                if match := re.search(rf"{verb} the (\w+)", text):
                    x0, y0, x1, y1 = boxes_F4[frame]
                    beyond = {"left": x1 <= 0, "right": x0 >= 1, "top": y1 <= 0, "bottom": y0 >= 1}
                    assert beyond[match[1]]
                    assert not seen_F[frame]
                    checked += 1
            if "enters" not in text:
                assert seen_F[0]
    assert checked > 10


def test_said_sizes_and_turns_are_those_of_the_sprites():
    source = Sprites(120, seed=5)
    for index, clip in enumerate(CLIPS):
        scene = source.scene(index)
        named, camera = sentences(clip.caption)
        for text, sprite in zip(named, scene.sprites, strict=False):
            growth = sprite.radius_F[-1] / sprite.radius_F[0]
            if camera is None:
                assert ("grows" in text, "shrinks" in text) == (growth > 1.1, growth < 0.9)
            assert ("turns" in text) == (np.ptp(sprite.angle_F) > 0.5)
            assert ("stands still" in text) <= sprite.is_still


def test_a_caption_word_for_word(make_scene, make_sprite, make_camera):
    sprites = [
        make_sprite((40, 40), (20, 42)),
        make_sprite((20, 20), (20, 20), color="green", shape="star"),
        make_sprite(
            (20, 20),
            (20, 20),
            color="blue",
            texture="striped",
            radius_F=np.array([8, 9, 10.0]),
            angle_F=np.array([0, 0.5, 1]),
        ),
        make_sprite((30, 30), (50, 10), color="orange", shape="ring"),
        make_sprite((9, 9), (9, 9), color="pink"),
    ]
    camera = make_camera("pan", "right")
    assert describe(make_scene(*sprites, camera=camera)) == (
        "a red square moves to the left, a green star stands still, a striped blue square turns "
        "and grows, an orange ring moves up and to the right, and others; the camera pans right"
    )


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ((-20, 30), (30, 30), "enters from the left"),
        ((30, 30), (32, 90), "leaves at the bottom"),
        ((30, -9), (90, 30), "enters from the top and leaves at the right"),
        ((30, 30), (31, 31), "moves around"),
        ((30, 30), (30, 40), "moves down"),
    ],
)
def test_where_a_sprite_is_said_to_go(make_scene, make_sprite, start, end, said):
    assert describe(make_scene(make_sprite(start, end))) == f"a red square {said}"
