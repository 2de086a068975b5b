"""Scores do not depend on how our videos reach their size: field case G1."""

from __future__ import annotations

import numpy as np
import pytest

import flashmotion_jax as fm
from flashmotion_jax.config import Grid, SamplingConfig
from flashmotion_jax.evaluation.benchmarks import read_benchmark
from flashmotion_jax.evaluation.scoring import Scorer
from flashmotion_jax.evaluation.segmenters import precomputed
from flashmotion_jax.media.geometry import fit_frames, video_size
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.trajectory import Canvas, Keyframe, Mask, TrackedObject, Trajectory
from helpers import magicdata_tree as tree

FRAMES = 3
CASES = [
    ((480, 854), "image", "crop"),
    ((600, 800), "image", "crop"),
    ((1024, 1024), "image", "crop"),
    ((1024, 1024), "model", "crop"),
    ((480, 854), "model", "stretch"),
    ((854, 480), "model", "stretch"),
    ((600, 800), "image", "stretch"),
    ((1080, 1920), "image", "crop"),
    ((1080, 1920), "model", "stretch"),
]


def discs(size):
    """Masks of two objects, bool [2, F, H, W]; the second leaves the picture."""
    rows, columns = np.indices(size)
    centers = [((0.5, 0.4 + 0.1 * f), (0.15, 0.1 + 0.02 * f)) for f in range(FRAMES)]
    return np.stack(
        [
            [
                np.hypot(rows - frame[k][0] * size[0], columns - frame[k][1] * size[1])
                < min(size) / (5 + 3 * k)
                for frame in centers
            ]
            for k in range(2)
        ]
    )


def label_frames(masks):
    colors = np.array([(128, 32, 32), (128, 80, 80)], np.uint8)
    frames = np.zeros((*masks.shape[1:], 3), np.uint8)
    for mask, color in zip(masks, colors, strict=True):
        frames[mask] = color
    return frames


def make_benchmark(root, size):
    """A video of noise-free discs; returns its frames."""
    frames = label_frames(discs(size))
    tree.write_maps(root / "masks" / "v0", frames)
    write_video(root / "videos" / "v0.mp4", frames, lossless=True)
    tree.write_csv(root, [tree.row("v0", frames=FRAMES)])
    boxes = ((0.3, 0.3, 0.6, 0.7), (0.0, 0.0, 0.3, 0.4))
    objects = tuple(
        TrackedObject(k, (Keyframe(0, box),), mask=Mask.from_array(mask[0]))
        for k, (box, mask) in enumerate(zip(boxes, discs(size), strict=True), start=1)
    )
    (root / "trajectories").mkdir()
    path = root / "trajectories" / "v0.json"
    Trajectory(Canvas(size[1], size[0]), FRAMES, 24.0, objects).save(path)
    return frames


class Perfect:
    """A fake pipeline that makes the true video, in the geometry of its settings."""

    def __init__(self, frames, size_from, resize):
        self.frames = frames
        self.sampling = SamplingConfig(size_from=size_from, resize=resize)

    def fit(self, frames, nearest=False):
        size = video_size(frames.shape[1:3], self.sampling, Grid(32, 32, 4))
        return fit_frames(frames, *size, self.sampling.resize, nearest)

    def __call__(self, *args, **kwargs):
        return self.fit(self.frames)


@pytest.mark.parametrize(("size", "size_from", "resize"), CASES)
def test_a_perfect_video_scores_1(tmp_path, monkeypatch, size, size_from, resize):
    frames = make_benchmark(tmp_path / "bench", size)
    pipeline = Perfect(frames, size_from, resize)
    tree.write_maps(tmp_path / "found" / "v0", pipeline.fit(frames, nearest=True))
    monkeypatch.setattr(
        "flashmotion_jax.inference.pipeline.Pipeline.from_pretrained", lambda *_: pipeline
    )
    config = fm.EvaluateConfig(
        "folder",
        tmp_path / "bench",
        tmp_path / "pred",
        tmp_path / "out",
        masks=tmp_path / "found",
        generate=True,
    )
    results = fm.evaluate(config)
    assert results.protocol.resize == resize
    (score,) = results.scores
    for name in ("mask_iou", "box_iou"):
        assert np.nanmin(score.values[name]) == 1
    assert np.nanmax(score.values["centroid_error"]) == 0


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_the_truth_has_the_pixels_of_a_perfect_video(tmp_path, resize):
    frames = make_benchmark(tmp_path, (96, 192))
    perfect = fit_frames(frames, 64, 64, resize)
    tree.write_maps(tmp_path / "pred" / "v0", perfect)
    seen = []
    scorer = Scorer(
        tmp_path / "pred",
        precomputed(tmp_path / "masks"),
        features={"fid": lambda video: seen.append(np.stack(list(video))) or np.zeros((1, 2))},
        resize=resize,
    )
    scorer(read_benchmark("folder", tmp_path).items[0])
    np.testing.assert_array_equal(seen[0], perfect)
    np.testing.assert_array_equal(seen[1], perfect)


def test_requested_boxes_are_cut_at_the_crop(tmp_path):
    frames = make_benchmark(tmp_path, (96, 192))
    (item,) = read_benchmark("folder", tmp_path).items
    tree.write_maps(tmp_path / "pred" / "v0", fit_frames(frames, 96, 96))
    boxes = np.zeros((FRAMES, 96, 192, 3), np.uint8)
    boxes[:, 29:67, 58:115] = (128, 32, 32)
    boxes[:, 0:38, 0:58] = (128, 80, 80)
    tree.write_maps(tmp_path / "found" / "v0", fit_frames(boxes, 96, 96, nearest=True))
    scorer = Scorer(tmp_path / "pred", precomputed(tmp_path / "found"), resize="crop")
    found = scorer(item).values["requested_box_iou"]
    assert found.min() > 0.95


def test_a_folder_remembers_its_geometry(tmp_path, monkeypatch):
    frames = make_benchmark(tmp_path / "bench", (96, 192))

    def evaluate(of_model, **options):
        pipeline = Perfect(frames, "model", of_model)
        pipeline.sampling = SamplingConfig(height=64, width=64, size_from="model", resize=of_model)
        tree.write_maps(tmp_path / of_model / "v0", pipeline.fit(frames, nearest=True))
        monkeypatch.setattr(
            "flashmotion_jax.inference.pipeline.Pipeline.from_pretrained", lambda *_: pipeline
        )
        return fm.evaluate(
            fm.EvaluateConfig(
                "folder",
                tmp_path / "bench",
                tmp_path / "pred",
                tmp_path / "out",
                masks=tmp_path / of_model,
                **options,
            )
        ).protocol.resize

    assert evaluate("crop", generate=True) == "crop"
    assert evaluate("crop") == "crop"
    assert evaluate("stretch", resize="stretch") == "stretch"
    with pytest.raises(ValueError, match=r"resize='crop'; this one has 'stretch'"):
        evaluate("stretch", generate=True)
    (tmp_path / "pred" / "generated.json").write_text('{"resize": 1}')
    with pytest.raises(ValueError, match=r"damaged: remove it, and pass --resize"):
        evaluate("crop")
