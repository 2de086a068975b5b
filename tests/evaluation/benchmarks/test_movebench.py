from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.benchmarks import read_benchmark
from flashmotion_jax.evaluation.conditions import requested_boxes, trajectory_of
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.scoring import Scorer, summarize
from flashmotion_jax.evaluation.segmenters import precomputed
from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.media.videos import write_video
from helpers import movebench_tree as tree


@pytest.mark.parametrize("language", ["", "en"])
def test_both_lists_are_read(tmp_path, language):
    tree.make_movebench(tmp_path)
    bench = read_benchmark("movebench", tmp_path / language)
    assert not bench.problems
    single, multi = bench.items
    assert (single.id, single.group, single.labels) == ("single/clip_single", "single", (1,))
    assert (multi.id, multi.group, multi.labels) == ("multi/clip_multi", "multi", (1, 2))
    assert single.caption == "a single square, it moves"
    assert single.num_frames == tree.FRAMES and len(single.masks) == 1
    assert single.video is not None and single.image is not None


def test_a_mask_moves_with_its_points(tmp_path):
    tree.make_movebench(tmp_path)
    _, multi = read_benchmark("movebench", tmp_path).items
    boxes = requested_boxes(multi) * np.array([tree.WIDTH, tree.HEIGHT] * 2)
    corners = tree.boxes(2).swapaxes(0, 1)
    np.testing.assert_allclose(boxes[..., :2], corners, atol=0.5)
    np.testing.assert_allclose(boxes[..., 2:], corners + tree.SIDE, atol=0.5)


def test_without_masks_each_track_is_an_object(tmp_path):
    tree.make_movebench(tmp_path, with_masks=False)
    single, _ = read_benchmark("movebench", tmp_path).items
    assert single.labels == () and requested_boxes(single) is None
    assert len(trajectory_of(single).objects) == 2
    tree.write_predictions(tmp_path, tmp_path / "pred")
    found = Scorer(tmp_path / "pred" / "videos", None)(single)
    assert set(found.values) == {
        "flicker",
        "background_change",
        "true_flicker",
        "true_background_change",
    }


@pytest.mark.parametrize("shift, enlarge", [(0, 1), (3, 2)])
def test_errors_are_those_of_the_shift(tmp_path, shift, enlarge):
    tree.make_movebench(tmp_path)
    pred = tree.write_predictions(tmp_path, tmp_path / "pred", shift, enlarge)
    scorer = Scorer(pred / "videos", precomputed(pred / "masks"), tracks=pred / "tracks")
    scores = [scorer(item) for item in read_benchmark("movebench", tmp_path).items]
    error = scores[1].values["endpoint_error"]
    assert error.shape == (4, tree.FRAMES)
    assert np.isnan(error[-1, -2:]).all() and np.isfinite(error[:-1]).all()
    np.testing.assert_allclose(error[np.isfinite(error)], shift, atol=1e-5)
    numbers = summarize(scores, Protocol("movebench", "masks"))
    overlap = tree.SIDE - shift
    assert numbers["requested_box_iou"].estimate == pytest.approx(
        overlap / (2 * tree.SIDE - overlap), abs=0.02
    )
    assert numbers["requested_centroid_error"].estimate == pytest.approx(
        shift / np.hypot(tree.WIDTH, tree.HEIGHT), abs=0.005
    )
    # There are true masks only on frame 0, which is given and does not count.
    assert numbers["mask_iou"].count == 0


def test_missing_files_are_reported(tmp_path):
    tree.make_movebench(tmp_path)
    (tmp_path / "en" / "track" / "single" / "clip_single_visibility.npy").unlink()
    (tmp_path / "en" / "first_frame" / "clip_multi.jpg").unlink()
    with pytest.raises(ValueError, match="none of its 2 videos can be scored"):
        read_benchmark("movebench", tmp_path)
    with pytest.raises(ValueError, match=r"no single_track\.txt or multi_track\.txt"):
        read_benchmark("movebench", tmp_path / "en" / "track")
    (tmp_path / "en" / "single_track.txt").write_text("clip.mp4\n")
    with pytest.raises(ValueError, match="expected a video, a comma and a caption"):
        read_benchmark("movebench", tmp_path)


def test_tracks_go_back_through_a_crop(tmp_path):
    """What the crop cut off cannot be followed, and is not measured."""
    tree.make_movebench(tmp_path)
    pred = tree.write_predictions(tmp_path, tmp_path / "pred")
    side = tree.HEIGHT
    left = (tree.WIDTH - side) // 2
    (item,) = (one for one in read_benchmark("movebench", tmp_path).items if one.kind == "multi")
    write_video(pred / "videos" / f"{item.id}.mp4", fit_frames(tree.frames(2), side, side))
    points, visible = tree.tracks(2)
    np.save(pred / "tracks" / f"{item.id}_tracks.npy", points - [left, 0])
    scorer = Scorer(pred / "videos", None, tracks=pred / "tracks", resize="crop")
    error = scorer(item).values["endpoint_error"].T
    inside = (points[..., 0] >= left) & (points[..., 0] <= left + side) & visible
    np.testing.assert_allclose(error[inside], 0, atol=1e-5)
    assert np.isnan(error[~inside]).all() and not inside.all()
