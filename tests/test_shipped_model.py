"""What a user of the small model that ships would see: objects go where their boxes say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flashmotion_jax import Pipeline
from flashmotion_jax.data import sprites
from flashmotion_jax.evaluation.sprites import measure, segment
from flashmotion_jax.pipeline import shipped_model
from flashmotion_jax.trajectory import move

PER_GROUP = 4
GROUPS = ("1", "2", "3")
#: In widths of the canvas.
SHIFT = 0.25


@pytest.fixture(scope="module")
def clips():
    groups = sprites.test_groups(PER_GROUP)
    return [clip for name in GROUPS for clip in groups[name]]


@pytest.fixture(scope="module")
def pipelines():
    return {kind: Pipeline.load(adapter=kind) for kind in (None, "resnet", "controlnet")}


def sample(pipeline, clips, trajectories=None, **options):
    images, prompts = [clip.video[0] for clip in clips], [clip.caption for clip in clips]
    return pipeline(images, prompts, trajectories, seed=0, **options)


def box_iou(videos, clips):
    return np.mean([measure(*pair).box_iou for pair in zip(videos, clips, strict=True)])


@pytest.mark.parametrize("kind", ["resnet", "controlnet"])
def test_objects_follow_their_boxes(pipelines, clips, kind):
    without = sample(pipelines[None], clips)
    following = sample(pipelines[kind], clips, [clip.trajectory for clip in clips])
    assert box_iou(following, clips) > box_iou(without, clips) + 0.2


@pytest.mark.parametrize("kind", ["resnet", "controlnet"])
def test_another_trajectory_moves_an_object_elsewhere(pipelines, kind):
    clips = [clip for clip in sprites.test_groups(60)["1"] if is_in_the_middle(clip)][:4]
    travelled = []
    for dx in (-SHIFT, SHIFT):
        trajectories = [move(resting(clip), 1, dx=dx, dy=0.0) for clip in clips]
        videos = sample(pipelines[kind], clips, trajectories)
        travelled.append([centre_x(*pair) for pair in zip(videos, clips, strict=True)])
    left, right = np.array(travelled)
    assert np.nanmean(right - left) > SHIFT  # of 2 SHIFT that were asked for


def is_in_the_middle(clip):
    x0, _, x1, _ = clip.boxes_KF4[0, 0]
    return not clip.camera_moves and abs((x0 + x1) / 2 - 0.5) < 0.1


def resting(clip):
    """The clip's trajectory with every object where it begins."""
    objects = [
        dataclasses.replace(each, keyframes=each.keyframes[:1]) for each in clip.trajectory.objects
    ]
    return dataclasses.replace(clip.trajectory, objects=tuple(objects))


def centre_x(video, clip):
    """Of the object in the last frame, in widths of the canvas; NaN where it is lost."""
    columns = np.nonzero(segment(video, clip.colours)[-1] == 1)[1]
    return columns.mean() / video.shape[2] if columns.size else np.nan


def test_weight_zero_ignores_the_trajectory(pipelines, clips):
    clip = clips[0]
    without = sample(pipelines[None], [clip])
    ignoring = sample(pipelines["resnet"], [clip], [clip.trajectory], adapter_scale=0.0)
    np.testing.assert_array_equal(ignoring, without)


def test_it_is_light():
    files = [file for file in shipped_model().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 25e6
