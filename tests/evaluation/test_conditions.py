from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.data.sprites import Sprites, SpritesConfig
from flashmotion_jax.data.sprites.export import export
from flashmotion_jax.evaluation.benchmarks import read_benchmark
from flashmotion_jax.evaluation.conditions import (
    clipped,
    first_frame,
    requested_boxes,
    trajectory_of,
    with_requests,
)
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.scoring import Scorer, summarize
from flashmotion_jax.evaluation.segmenters import precomputed, sprite_colors
from helpers import magicdata_tree as tree
from helpers import movebench_tree


def test_boxes_around_masks(tmp_path):
    (item,) = read_benchmark("folder", tree.make_tree(tmp_path, 1)).items
    trajectory = trajectory_of(item)
    assert trajectory.objects[0].rgb == (128, 32, 32)
    height, width = tree.SIZE
    boxes = trajectory.boxes()[0] * [width, height, width, height]
    t = np.arange(tree.FRAMES)
    expected = np.stack([4 + 3 * t, 8 + t, 14 + 3 * t, 18 + t], axis=1)
    np.testing.assert_allclose(boxes, expected, atol=0.5)
    assert trajectory.objects[0].mask.to_array().sum() == 100
    assert requested_boxes(item) is None
    np.testing.assert_allclose(first_frame(item), tree.video_frames(0)[0], atol=30)


def test_every_track_of_movebench_is_an_object(tmp_path):
    root = movebench_tree.make_movebench(tmp_path, with_masks=False)
    points = np.random.default_rng(0).uniform(0, 40, (9, 30, 2)).astype(np.float32)
    folder = root / "en" / "track" / "multi"
    np.save(folder / "clip_multi_tracks.npy", points[None])
    np.save(folder / "clip_multi_visibility.npy", np.ones((1, 9, 30), bool))
    items = {item.id: item for item in read_benchmark("movebench", root).items}
    trajectory = trajectory_of(items["multi/clip_multi"])
    assert len({item.rgb for item in trajectory.objects}) == 30


def test_sprites_request_the_boxes_of_their_trajectories(tmp_path):
    source = Sprites(2, config=SpritesConfig(num_frames=5), num_objects=2)
    export(source, tmp_path)
    items = read_benchmark("sprites", tmp_path).items
    scores = [Scorer(tmp_path / "videos", sprite_colors(tmp_path))(item) for item in items]
    numbers = summarize(scores, Protocol("sprites", "colors"))
    # A requested box surrounds the whole object, including hidden and dark pixels.
    assert numbers["requested_box_iou"].estimate > 0.7
    assert numbers["requested_centroid_error"].estimate < 0.05
    # The centroid of a triangle is not the center of its box, and others hide parts of objects.
    assert numbers["ate"].estimate < 4
    diagonal = np.hypot(64, 64)
    assert numbers["ate_relative"].estimate == pytest.approx(numbers["ate"].estimate / diagonal)
    for item in items:
        boxes = clipped(requested_boxes(item))
        assert boxes.shape == (2, 5, 4)
        assert np.nanmin(boxes) >= 0 and np.nanmax(boxes) <= 1


def test_requests_of_another_folder_and_missed_boxes(tmp_path):
    root = tree.make_tree(tmp_path / "data", 1)
    (item,) = read_benchmark("folder", root).items
    with pytest.raises(ValueError, match="needs a trajectory for each video"):
        with_requests(item, tmp_path)
    assert with_requests(item, None) is item
    trajectory_of(item).save(tmp_path / "v0.json")
    item = with_requests(item, tmp_path)
    found = Scorer(root / "videos", precomputed(root / "masks"))(item)
    assert np.nanmin(found.values["requested_box_iou"]) > 0.85
    tree.write_maps(tmp_path / "none" / "v0", 0 * tree.map_frames(0, "masks"))
    lost = Scorer(root / "videos", precomputed(tmp_path / "none"))(item)
    assert (lost.values["requested_box_iou"] == 0).all()
    assert (lost.values["requested_centroid_error"] == 0.5).all()


def test_requests_outside_the_frame_do_not_count():
    boxes = np.array([[[-0.5, 0.2, 0.5, 0.4], [1.0, 0.0, 1.5, 0.5]]])
    found = clipped(boxes)
    np.testing.assert_array_equal(found[0, 0], [0, 0.2, 0.5, 0.4])
    assert np.isnan(found[0, 1]).all()
