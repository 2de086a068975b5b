from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.data.sprites import Sprites, SpritesConfig
from flashmotion_jax.data.sprites.export import export
from flashmotion_jax.evaluation.benchmarks import read_benchmark
from flashmotion_jax.evaluation.benchmarks.base import Problem
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.scoring import (
    Score,
    Scorer,
    sampled_frames,
    summarize,
)
from flashmotion_jax.evaluation.segmenters import precomputed, sprite_colors
from flashmotion_jax.media.videos import write_video
from helpers import magicdata_tree as tree

FOLDER = Protocol("folder")
OF_MASKS = ("mask_iou", "box_iou", "centroid_error")


@pytest.fixture
def root(tmp_path):
    """A benchmark of one video with an object of 10 x 10 pixels."""
    return tree.make_tree(tmp_path, 1)


def shifted(root, name, shift, enlarge=1):
    """The folder of the true masks, shifted to the right and enlarged."""
    frames = np.roll(tree.map_frames(0, "masks"), shift, axis=2)
    tree.write_maps(root / name / "v0", frames.repeat(enlarge, axis=1).repeat(enlarge, axis=2))
    return root / name


def score(root, masks, **options):
    (item,) = read_benchmark("folder", root).items
    return Scorer(root / "videos", precomputed(masks), **options)(item)


def test_truth_against_itself_is_1(root):
    found = score(root, root / "masks")
    summary = summarize([found], FOLDER)
    assert found.values["mask_iou"].shape == (1, tree.FRAMES)
    assert [summary[name].estimate for name in OF_MASKS] == [1, 1, 0]


@pytest.mark.parametrize("enlarge", [1, 3])
@pytest.mark.parametrize("shift", [1, 4, 10])
def test_a_shift_of_k_pixels_gives_the_analytic_iou(root, shift, enlarge):
    found = score(root, shifted(root, "shifted", shift, enlarge))
    expected = (10 - shift) / (10 + shift)
    np.testing.assert_allclose(found.values["mask_iou"], expected)
    np.testing.assert_allclose(found.values["box_iou"], expected)
    np.testing.assert_allclose(found.values["centroid_error"], shift / np.hypot(*tree.SIZE))


def test_a_shorter_method_is_compared_with_uniform_frames(root):
    frames = tree.map_frames(0, "masks")
    tree.write_maps(root / "fewer" / "v0", frames[[0, 4, 8]])
    found = score(root, root / "fewer", method_frames=3)
    np.testing.assert_array_equal(found.values["mask_iou"], np.ones((1, 3)))
    np.testing.assert_array_equal(sampled_frames(121, 14)[[0, 1, -1]], [0, 9, 120])
    np.testing.assert_array_equal(sampled_frames(9, 16), np.arange(9))


def test_missing_short_cut_and_unsegmented_videos_are_problems(root):
    video = root / "videos" / "v0.mp4"
    assert score(root, root / "none") == Problem(
        "v0", "0 masks of the generated video; more are required"
    )
    whole = video.read_bytes()
    video.write_bytes(whole[:-200])
    assert isinstance(score(root, root / "masks"), Problem)
    write_video(video, tree.video_frames(0, 5))
    assert score(root, root / "masks") == Problem("v0", "5 frames generated; 9 are required")
    video.unlink()
    assert score(root, root / "masks") == Problem("v0", "no generated video")


def test_sprites_are_found_by_their_colors_and_noise_makes_it_worse(tmp_path):
    source = Sprites(2, config=SpritesConfig(num_frames=5), num_objects=3)
    export(source, tmp_path)
    items = read_benchmark("sprites", tmp_path).items
    protocol = Protocol("sprites", "colors")
    rng = np.random.default_rng(0)
    means = []
    for strength in (0, 60, 120):
        for i, item in enumerate(items):
            noisy = source[i].video + rng.normal(size=source[i].video.shape) * strength
            frames = noisy.clip(0, 255).astype(np.uint8)
            write_video(tmp_path / f"noise{strength}" / item.id, frames)
        scorer = Scorer(tmp_path / f"noise{strength}", sprite_colors(tmp_path))
        scores = [scorer(one) for one in items]
        means.append(summarize(scores, protocol)["mask_iou"].estimate)
        assert summarize(scores[::-1], protocol)["mask_iou"].estimate == pytest.approx(means[-1])
    assert means[0] > 0.85 and means[0] > means[1] > means[2]


def test_averages_follow_the_protocol():
    long = np.array([[1.0, 0.5, 0.5, np.nan], [1.0, 0.5, 0.5, 0.5]])
    short = np.array([[1.0, 1.0, np.nan, np.nan]])
    unseen = np.full((1, 4), np.nan)
    videos = {"l": long, "s": short, "u": unseen}
    scores = [Score(id, "1", {"mask_iou": values}) for id, values in videos.items()]

    def estimate(**choices):
        figure = summarize(scores, Protocol("folder", **choices))["mask_iou"]
        assert figure.count == 2
        return figure.estimate

    assert estimate() == pytest.approx((0.5 + 1) / 2)
    assert estimate(average="pooled") == pytest.approx((5 * 0.5 + 1) / 6)
    assert estimate(count_frame_0=True) == pytest.approx((4.5 / 7 + 1) / 2)


def test_contradicting_protocols_raise():
    with pytest.raises(ValueError, match="only the colors of sprites are known"):
        Protocol("davis", "colors")
    with pytest.raises(ValueError, match="expected at least 2"):
        Protocol("davis", method_frames=1)


def test_a_generated_video_may_be_images_of_any_size(root):
    frames = root / "generated" / "v0"
    frames.mkdir(parents=True)
    for i in range(tree.FRAMES):
        Image.new("RGB", (7, 5)).save(frames / f"{i}.png")
    (item,) = read_benchmark("folder", root).items
    found = Scorer(root / "generated", precomputed(root / "masks"))(item)
    assert isinstance(found, Score) and found.values["mask_iou"].min() == 1
