"""What a user sees of the model that ships: objects go where their boxes go, if asked to."""

from __future__ import annotations

import json

import numpy as np
import pytest

from examples.own_trajectory import IMAGE, TRAJECTORIES, draw
from flashmotion_jax import Pipeline
from flashmotion_jax.cli.main import main
from flashmotion_jax.data.sprites import test_groups as held_out
from flashmotion_jax.data.sprites.__main__ import main as export
from flashmotion_jax.evaluation.benchmarks.sprites import clip_frames, segment
from flashmotion_jax.evaluation.metrics.box_iou import bounding_boxes, box_iou
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.scoring import Score, score_frames, summarize

#: With 4, the mean over clips moves by as much as the margin leaves.
PER_GROUP = 8
#: By how much boxes are followed better than without being known.
MARGIN = 0.2


@pytest.fixture(scope="module", params=["resnet", "controlnet"])
def pipe(request):
    return Pipeline.from_pretrained(adapter=request.param)


@pytest.fixture(scope="module")
def clips():
    """Held-out ones, of one, two and three objects."""
    groups = held_out(PER_GROUP)
    return [clip for name in ("1", "2", "3") for clip in groups[name]]


def sample(pipe, clips, trajectories):
    images, captions = [clip.video[0] for clip in clips], [clip.caption for clip in clips]
    return pipe(images, captions, trajectories, seed=0)


def mean_box_iou(videos, clips):
    scores = [
        Score(clip.id, "all", score_frames(clip_frames(video, clip), "sprites"))
        for video, clip in zip(videos, clips, strict=True)
    ]
    return summarize(scores, Protocol("sprites", "colors"))["box_iou"].estimate


@pytest.fixture(scope="module")
def unguided(clips):
    """Their box IoU without an adapter, from image and caption alone."""
    videos = sample(Pipeline.from_pretrained(adapter=None), clips, None)
    return mean_box_iou(videos, clips)


def test_objects_follow_their_boxes(pipe, clips, unguided):
    videos = sample(pipe, clips, [clip.trajectory for clip in clips])
    guided = mean_box_iou(videos, clips)
    assert guided > unguided + MARGIN


def last_boxes(video):
    """Of the yellow triangle and the blue circle, in the last frame: `[K, 1, 4]`."""
    labels_FHW = segment(video, ("yellow", "blue"))
    pred_KFHW = labels_FHW == np.arange(1, 3)[:, None, None, None]
    return bounding_boxes(pred_KFHW)[:, -1:]


def test_another_trajectory_moves_them_elsewhere(pipe):
    wanted = [draw(moves) for moves in TRAJECTORIES.values()]
    videos = pipe([str(IMAGE)] * 2, list(TRAJECTORIES), wanted, seed=0)
    boxes = [trajectory.boxes()[:, -1:] * 64 for trajectory in wanted]
    for video, own, other in zip(videos, boxes, boxes[::-1], strict=True):
        found = last_boxes(video)
        assert box_iou(found, own).mean() > box_iou(found, other).mean() + MARGIN


def test_a_scale_of_zero_ignores_the_trajectory(pipe):
    prompt = next(iter(TRAJECTORIES))
    videos = [
        pipe(str(IMAGE), prompt, draw(moves), seed=0, adapter_scale=0.0)
        for moves in TRAJECTORIES.values()
    ]
    np.testing.assert_array_equal(*videos)
    plain = Pipeline.from_pretrained(adapter=None)(str(IMAGE), prompt, seed=0)
    # Rounded to 8 bits, by two programs.
    np.testing.assert_allclose(videos[0].astype(int), plain, atol=1)


def test_the_harness_makes_and_scores_the_held_out_split(tmp_path):
    root, out = tmp_path / "held_out", tmp_path / "scores"
    assert export([str(root), "--split", "test", "--per-group", "1"]) == 0
    inputs = ["--bench", "sprites", "--root", str(root), "--pred", str(tmp_path / "made")]
    assert main(["evaluate", *inputs, "--generate", "--out", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["problems"] == [] and len(result["videos"]) == 6
    assert result["groups"]["all"]["box_iou"]["count"] == 6
    assert 0.2 < result["groups"]["all"]["box_iou"]["estimate"] < 1
    assert "box IoU" in (out / "report.html").read_text()
