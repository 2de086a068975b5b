from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.data.sprites import Sprites, SpritesConfig
from flashmotion_jax.data.sprites.export import export
from flashmotion_jax.evaluation.benchmarks import read_benchmark
from flashmotion_jax.evaluation.benchmarks.base import Item, Problem, object_masks
from helpers import magicdata_tree as tree


def davis_frames(count, objects=2):
    """Labels 1, 2, ... of squares that move to the right."""
    frames = np.zeros((count, 24, 64), np.uint8)
    for t in range(count):
        for k in range(objects):
            frames[t, 2 + 7 * k : 7 + 7 * k, t % 40 : t % 40 + 5] = k + 1
    return frames


def make_davis(root, lengths):
    listing = root / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(lengths) + "\n")
    for id, count in lengths.items():
        folder = root / "Annotations" / "480p" / id
        folder.mkdir(parents=True)
        for t, labels in enumerate(davis_frames(count)):
            picture = Image.fromarray(labels, "L").convert("P")
            picture.putdata(labels.ravel().tolist())
            picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            picture.save(folder / f"{t:05d}.png")
    return root


def test_davis_counts_short_clips_with_4_n_plus_1_frames(tmp_path):
    bench = read_benchmark("davis", make_davis(tmp_path, {"long": 52, "short": 8, "gone": 0}))
    assert [(item.id, len(item.masks)) for item in bench.items] == [("long", 49), ("short", 5)]
    assert bench.items[0].labels == (1, 2) and bench.items[0].group == "2"
    assert bench.problems == (Problem("gone", "no masks"),)
    masks = object_masks(bench.items[0].masks[3], bench.items[0].labels)
    np.testing.assert_array_equal(masks, davis_frames(4)[3] == np.array([1, 2])[:, None, None])


def test_flashbench_lists_short_empty_torn_and_nameless_videos(tmp_path):
    rows = []
    for i, id in enumerate(("whole", "short", "torn", "empty")):
        frames = tree.map_frames(i, "masks", 122)
        tree.write_maps(tmp_path / "masks" / id, frames[:100] if id == "short" else frames)
        rows.append(tree.row(id, f"caption of {id}"))
    first = "annotated_frame_00000.png"
    (tmp_path / "masks" / "torn" / first).write_bytes(b"no picture")
    Image.new("RGB", tree.SIZE).save(tmp_path / "masks" / "empty" / first)
    tree.write_csv(tmp_path, [*rows, tree.row("absent"), tree.row("whole")])
    bench = read_benchmark("flashbench", tmp_path)
    (item,) = bench.items
    assert (item.id, item.caption, len(item.masks)) == ("whole", "caption of whole", 121)
    assert item.labels == (0x802020,) and item.group == "1"
    reasons = {problem.id: problem.reason for problem in bench.problems}
    assert list(reasons) == ["short", "torn", "empty", "absent", "whole"]
    assert reasons["short"] == "100 masks; at least 121 are required"
    assert "not a readable image" in reasons["torn"]
    assert reasons["empty"] == "no object on frame 0"
    assert reasons["absent"] == "no masks"
    assert reasons["whole"].startswith("line 7: line 2 has the same video; only the last")


def test_masks_with_lossy_compression_are_reported(tmp_path):
    root = tree.make_tree(tmp_path, 2)
    first = root / "masks" / "v0" / "annotated_frame_00000.png"
    Image.open(first).save(first.with_suffix(".jpg"))
    first.unlink()
    bench = read_benchmark("folder", root)
    assert [item.id for item in bench.items] == ["v1"]
    assert "mixes labels: save masks as PNG" in bench.problems[0].reason


def test_sprites_labels_are_the_visible_masks(tmp_path):
    source = Sprites(2, config=SpritesConfig(num_frames=5), num_objects=3)
    export(source, tmp_path)
    bench = read_benchmark("sprites", tmp_path)
    assert len(bench.items) == 2 and not bench.problems
    for index, item in enumerate(bench.items):
        clip = source[index]
        assert (item.id, item.caption, len(item.masks)) == (clip.id, clip.caption, 5)
        found = object_masks(item.masks[4], item.labels)
        assert len(found) == sum(mask.any() for mask in clip.masks_KFHW[:, 0])
        np.testing.assert_array_equal(found.any(axis=0), clip.masks_KFHW[:, 4].any(axis=0))


def test_a_folder_needs_no_csv(tmp_path):
    tree.write_maps(tmp_path / "masks" / "b", tree.map_frames(1, "masks", 6))
    tree.write_maps(tmp_path / "masks" / "a", tree.map_frames(0, "masks", 3))
    items = read_benchmark("folder", tmp_path).items
    assert [(item.id, item.caption, len(item.masks)) for item in items] == [
        ("a", "", 3),
        ("b", "", 6),
    ]


@pytest.mark.parametrize("count, group", [(1, "1"), (5, "5"), (6, "6+"), (9, "6+")])
def test_groups_match_the_paper(count, group):
    assert Item("x", "", (), tuple(range(1, count + 1))).group == group


def test_other_folders_raise(tmp_path):
    with pytest.raises(ValueError, match="expected one of flashbench"):
        read_benchmark("vbench", tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        read_benchmark("davis", tmp_path / "gone")
    with pytest.raises(ValueError, match="expected the folder DAVIS"):
        read_benchmark("davis", tmp_path)
    with pytest.raises(ValueError, match="expected the MagicData folder"):
        read_benchmark("magicbench", tmp_path)
    with pytest.raises(ValueError, match="none of its 0 videos"):
        read_benchmark("folder", tmp_path)
