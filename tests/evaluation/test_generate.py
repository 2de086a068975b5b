"""How many frames `evaluate --generate` makes, and what moves in those that are not compared."""

from __future__ import annotations

import numpy as np
import pytest

import flashmotion_jax as fm
from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.evaluation.benchmarks import read_benchmark
from flashmotion_jax.evaluation.conditions import longer_motion
from flashmotion_jax.media.videos import read_video, write_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import load_maps
from helpers import magicdata_tree as tree

HEIGHT, WIDTH = 80, 240  # wide enough for 61 frames of the square of `tree.map_frames`


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """MagicBench with a video of 52 annotated frames, of which 49 are compared."""
    root = tmp_path_factory.mktemp("magicbench")
    tree.write_maps(root / "masks" / "v0", tree.map_frames(0, "masks", 52, (HEIGHT, WIDTH)))
    write_video(root / "videos" / "v0.mp4", tree.video_frames(0, 52, (HEIGHT, WIDTH)))
    tree.write_csv(root, [tree.row("v0", frames=52)])
    return root


class Recorder:
    """A fake pipeline whose videos are the maps that it was given."""

    def __init__(self, num_frames, map_kind="box"):
        self.sampling = SamplingConfig(
            height=HEIGHT, width=WIDTH, num_frames=num_frames, map_kind=map_kind
        )

    def __call__(self, image, prompt, motion, *, seed, num_frames, known_frames):
        return load_maps(
            motion,
            num_frames=num_frames,
            height=HEIGHT,
            width=WIDTH,
            map_kind=self.sampling.map_kind,
        )


def generate(monkeypatch, root, folder, pipeline, **options):
    monkeypatch.setattr(
        "flashmotion_jax.inference.pipeline.Pipeline.from_pretrained", lambda *_: pipeline
    )
    config = fm.EvaluateConfig(
        "magicbench",
        root,
        folder / "pred",
        folder / "out",
        masks=root / "masks",
        generate=True,
        **options,
    )
    results = fm.evaluate(config)
    assert results.scores[0].values["mask_iou"].shape == (1, options.get("method_frames", 49))
    return read_video(folder / "pred" / "v0.mp4")[0]


@pytest.mark.parametrize(
    ("of_model", "options", "made"),
    [
        (121, {}, 121),  # the paper's
        (61, {}, 61),
        (49, {}, 49),
        (121, {"num_frames": 57}, 57),
        (121, {"method_frames": 13}, 13),
    ],
)
def test_magicbench_compares_the_first_frames_of_a_long_video(
    monkeypatch, root, tmp_path, of_model, options, made
):
    assert len(generate(monkeypatch, root, tmp_path, Recorder(of_model), **options)) == made


@pytest.mark.parametrize("map_kind", ["box", "mask"])
def test_objects_follow_later_masks_and_then_stay(monkeypatch, root, tmp_path, map_kind):
    video = generate(monkeypatch, root, tmp_path, Recorder(61, map_kind))
    drawn = [np.flatnonzero((frame.max(axis=-1) > 60).any(axis=0)) for frame in video[1:]]
    left = np.array([columns[0] for columns in drawn])
    expected = 4 + 3 * np.minimum(np.arange(1, 61), 51)
    np.testing.assert_allclose(left, expected, atol=2)
    (item,) = read_benchmark("magicbench", root).items
    boxes = longer_motion(item, 61).boxes()[0]
    np.testing.assert_allclose(boxes[:, 0] * WIDTH, 4 + 3 * np.minimum(np.arange(61), 51), atol=0.5)


@pytest.mark.parametrize(
    ("of_model", "options", "message"),
    [
        (33, {}, "49 frames are compared, and the model generates 33; add --method-frames 33"),
        (121, {"num_frames": 33}, "49 frames are compared"),
        (121, {"num_frames": 61, "method_frames": 13}, "give one of them"),
    ],
)
def test_too_few_frames_raise(monkeypatch, root, tmp_path, of_model, options, message):
    with pytest.raises(UserError, match=message):
        generate(monkeypatch, root, tmp_path, Recorder(of_model), **options)
