"""Clips by number: always the same, here and as stored from another machine.

`python tests/data/sprites/test_clips.py` stores them again, in golden/clips.npz.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import grain
import numpy as np
import pytest

# The module, not its names: pytest would run `test_groups`.
from flashmotion_jax.data import sprites
from flashmotion_jax.trajectory.render import render, render_masks
from flashmotion_jax.trajectory.schema import Trajectory

GOLDEN = Path(__file__).parent / "golden" / "clips.npz"


def golden_clips():
    return [sprites.Sprites(9, seed=1)[8], sprites.test_groups(1)["3"][0]]


def summary(clip):
    """A clip in few numbers: means of 8 x 8 pixels, boxes in pixels, sizes of masks."""
    tiles = clip.video.reshape(17, 8, 8, 8, 8, 3).mean(axis=(2, 4))
    return {
        "caption": np.array(clip.caption),
        "tiles": np.rint(tiles).astype(np.uint8),
        "boxes": (clip.boxes_KF4 * 64).astype(np.float32),
        "areas": clip.masks_KFHW.sum(axis=(2, 3)).astype(np.int16),
    }


def assert_same(one, other):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


def test_clips_are_those_that_were_stored():
    with np.load(GOLDEN, allow_pickle=False) as stored:
        for number, clip in enumerate(golden_clips()):
            actual = summary(clip)
            assert actual["caption"] == stored[f"caption_{number}"]
            for name, tolerance in (("tiles", 1), ("boxes", 1e-3), ("areas", 2)):
                expected = stored[f"{name}_{number}"].astype(float)
                np.testing.assert_allclose(actual[name], expected, atol=tolerance)


def test_a_clip_depends_on_split_seed_and_index_alone():
    source = sprites.Sprites(20, seed=4)
    once = source[13]
    _ = source[2]
    assert_same(once, sprites.Sprites(14, seed=4)[13])
    assert_same(once, source[-7])
    others = [source[12], sprites.Sprites(20, seed=5)[13]]
    others.append(sprites.Sprites(20, seed=4, split="test")[13])
    for other in others:
        assert other.id != once.id
        assert not np.array_equal(other.video[0], once.video[0])


def test_no_scene_is_in_both_splits():
    def phases(source):
        return {source.scene(i).background.phases_N.tobytes() for i in range(len(source))}

    train = [phases(sprites.Sprites(50, seed=seed)) for seed in (0, 1, 2, 3, 4, 5, 6, 2**32 - 1)]
    test = [phases(source) for source in sprites.test_groups(50).values()]
    assert len(set().union(*train, *test)) == 50 * (len(train) + len(test))


def test_groups_are_those_of_flashbench():
    groups = sprites.test_groups(6)
    assert list(groups) == ["1", "2", "3", "4", "5", "6+"]
    counts = {name: {len(clip.colors) for clip in source} for name, source in groups.items()}
    assert [counts[name] for name in "12345"] == [{1}, {2}, {3}, {4}, {5}]
    assert counts["6+"] <= {6, 7, 8}
    ids = [clip.id for source in groups.values() for clip in source]
    assert len(set(ids)) == 36


def test_the_parts_of_a_clip_fit_together():
    config = sprites.SpritesConfig(num_frames=9, height=48, width=80, fps=12)
    for clip in sprites.Sprites(12, config=config, num_objects=4):
        assert clip.video.shape == (9, 48, 80, 3)
        assert clip.video.dtype == np.uint8
        assert clip.masks_KFHW.shape == (4, 9, 48, 80)
        assert clip.static_FHW.shape == (9, 48, 80)
        assert clip.boxes_KF4.shape == (4, 9, 4)
        trajectory = clip.trajectory
        assert (trajectory.num_frames, trajectory.fps) == (9, 12)
        assert [item.id for item in trajectory.objects] == [1, 2, 3, 4]
        assert [item.name.split()[-2] for item in trajectory.objects] == list(clip.colors)
        np.testing.assert_array_equal(trajectory.boxes(), clip.boxes_KF4)
        assert clip.camera_moves == ("camera" in clip.caption)
        assert Trajectory.from_dict(trajectory.to_dict()) == trajectory


def test_frame_0_of_the_trajectory_renders_to_the_masks():
    for clip in sprites.Sprites(40, seed=2):
        colors = [item.rgb for item in clip.trajectory.objects]
        expected = render_masks(clip.masks_KFHW[:, :1], colors)[0]
        np.testing.assert_array_equal(render(clip.trajectory, 64, 64)[0], expected)


def test_a_source_for_grain():
    source = sprites.Sprites(6, seed=3)
    assert repr(source) == repr(sprites.Sprites(6, seed=3)) != repr(sprites.Sprites(6, seed=4))
    dataset = grain.MapDataset.source(source).shuffle(seed=0)
    seen = {dataset[i].id: dataset[i] for i in range(6)}
    assert sorted(seen) == [source.id(i) for i in range(6)]
    assert_same(seen[source.id(2)], source[2])
    assert len(list(dataset.to_iter_dataset())) == 6
    assert len(list(source)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count=0; expected a whole number of clips, at least 1"),
        ({"count": 2.5}, "count=2.5; expected a whole number"),
        ({"seed": -1}, "seed=-1; expected a whole number from 0 to 2^32 - 1"),
        ({"seed": 2**32}, "seed=4294967296; expected"),
        ({"split": "val"}, "split='val'; expected 'train' or 'test'"),
        ({"num_objects": 9}, "num_objects=9; expected 1 to 6, or None"),
    ],
)
def test_wrong_arguments_say_what_was_expected(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sprites.Sprites(**{"count": 3, **arguments})


def test_an_index_beyond_the_end():
    source = sprites.Sprites(3)
    for index in (3, -4):
        with pytest.raises(IndexError):
            source[index]


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    stored = {
        f"{name}_{number}": array
        for number, clip in enumerate(golden_clips())
        for name, array in summary(clip).items()
    }
    np.savez_compressed(GOLDEN, **stored)
