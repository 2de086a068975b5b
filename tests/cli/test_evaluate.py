from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest

from flashmotion_jax.cli import evaluate as command
from flashmotion_jax.cli.main import main
from flashmotion_jax.data.sprites import Sprites, SpritesConfig
from flashmotion_jax.data.sprites.export import export
from flashmotion_jax.evaluation.benchmarks import LAYOUTS, layout_of
from flashmotion_jax.evaluation.exports import Method
from flashmotion_jax.evaluation.features import presets
from helpers import magicdata_tree as tree


def evaluate(*args):
    return main(["evaluate", *map(str, args)])


def test_the_truth_of_a_folder_is_perfect_and_missing_videos_are_reported(tmp_path, capsys):
    root, out = tree.make_tree(tmp_path / "data", 3), tmp_path / "out"
    (root / "videos" / "v1.mp4").unlink()
    folders = ("--root", root, "--pred", root / "videos", "--masks", root / "masks")
    assert evaluate("--bench", "folder", *folders, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "not scored: v1: no generated video" in printed
    assert printed.splitlines()[-1].endswith("2 videos, 1 not scored")
    row = "| all | 100.00 [100.00, 100.00] (N 2) | 100.00 [100.00, 100.00] (N 2) | 0.00 [0.00,"
    assert row in (out / "report.md").read_text() and row in printed
    result = json.loads((out / "result.json").read_text())
    assert result["protocol"] == {
        "bench": "folder",
        "segmenter": "masks",
        "method_frames": None,
        "count_frame_0": False,
        "average": "video",
        "overlaps": "smallest",
        "resize": "stretch",
        "fid": None,
        "fvd": None,
        "sam2": None,
    }
    assert result["problems"] == [{"id": "v1", "reason": "no generated video"}]
    assert [video["id"] for video in result["videos"]] == ["v0", "v2"]
    assert len({video["sha256"] for video in result["videos"]}) == 2
    with np.load(out / "scores.npz") as scores:
        assert scores["v2/mask_iou"].shape == (1, tree.FRAMES)


def test_sprites_need_no_masks(tmp_path):
    export(Sprites(2, config=SpritesConfig(num_frames=5), num_objects=2), tmp_path / "data")
    folders = ("--root", tmp_path / "data", "--pred", tmp_path / "data" / "videos")
    assert evaluate("--bench", "sprites", *folders, "--out", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["groups"]["all"]["mask_iou"]["estimate"] > 0.85
    assert result["groups"]["all"]["mask_iou"]["count"] == 2


@pytest.mark.parametrize(
    "bench, pred, words",
    [
        ("davis", "videos", "needs masks of the generated videos: --masks DIR"),
        ("sprites", "gone", "no folder"),
        ("sprites", "masks", "none of 1 videos could be scored"),
    ],
)
def test_wrong_input_is_status_2(tmp_path, capsys, bench, pred, words):
    tree.make_tree(tmp_path, 1)
    folders = ("--root", tmp_path, "--pred", tmp_path / pred)
    assert evaluate("--bench", bench, *folders, "--out", tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "result.json").exists()


def test_the_command_lists_all_choices():
    assert all(layout_of(bench).read for bench in LAYOUTS)
    assert get_args(Method) == command.METHODS
    assert presets.FID_PRESETS == command.FID_PRESETS
    assert presets.FVD_PRESETS == command.FVD_PRESETS
