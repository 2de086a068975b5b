from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.cli.main import main
from flashmotion_jax.evaluation.benchmarks import read_benchmark
from flashmotion_jax.evaluation.exports import FORMATS, export_benchmark
from flashmotion_jax.media.videos import read_video
from helpers import magicdata_tree as tree
from helpers import movebench_tree

HEIGHT, WIDTH = tree.SIZE


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """One square of 10 x 10 pixels, its corner at (4 + 3 t, 8 + t)."""
    return read_benchmark("folder", tree.make_tree(tmp_path_factory.mktemp("data"), 1)).items


def exported(items, method, folder, frames):
    assert export_benchmark(items, method, folder, num_frames=frames) == (1, [])
    about = json.loads((folder / "v0" / "about.json").read_text())
    assert about["frames"] == frames and about["score_with"] == f"--method-frames {frames}"
    return folder / "v0"


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image)


def centers(frames):
    t = np.linspace(0, tree.FRAMES - 1, frames)
    return np.stack([9 + 3 * t, 13 + t], axis=1)


def test_tora_gets_a_path_on_256_pixels(items, tmp_path):
    folder = exported(items, "tora", tmp_path, 5)
    lines = (folder / "trajectory_01.txt").read_text().split()
    points = np.array([[int(value) for value in line.split(",")] for line in lines])
    np.testing.assert_allclose(points, centers(5) / [WIDTH, HEIGHT] * 256, atol=2.5)
    assert picture(folder / "image.png").shape == (HEIGHT, WIDTH, 3)
    assert (folder / "prompt.txt").is_file()


def test_draganything_gets_masks_and_points_of_the_image(items, tmp_path):
    folder = exported(items, "draganything", tmp_path, 5)
    demo = json.loads((folder / "demo.json").read_text())
    assert demo["0"].keys() == {"comment", "mask_name", "trajectory"}
    np.testing.assert_allclose(demo["0"]["trajectory"], centers(5), atol=1)
    mask = picture(folder / demo["0"]["mask_name"])
    assert mask.shape == (HEIGHT, WIDTH) and (mask == 255).sum() == 100
    assert (folder / "v0.jpg").is_file()


def test_sg_i2v_gets_the_first_box_and_centers(items, tmp_path):
    folder = exported(items, "sg-i2v", tmp_path, 5)
    rows = np.load(folder / "traj.npy")
    assert rows.shape == (1, 2 + 5, 2)
    np.testing.assert_array_equal(rows[0, :2], [[4, 8], [14, 18]])
    np.testing.assert_allclose(rows[0, 2:], centers(5), atol=1)


def test_levitor_gets_points_with_depth(items, tmp_path):
    folder = exported(items, "levitor", tmp_path, 5)
    (one,) = json.loads((folder / "tracks.json").read_text())["objects"]
    np.testing.assert_allclose(one["points"], centers(5), atol=1)
    # The square keeps its size, so its depth is constant.
    np.testing.assert_allclose(one["depth"], 1, atol=0.1)
    assert (picture(folder / one["mask"]) > 0).sum() == 100


def test_magicmotion_gets_a_map_video_and_a_list(items, tmp_path):
    folder = exported(items, "magicmotion", tmp_path, 9)
    maps, _ = read_video(folder / "trajectory.mp4")
    assert maps.shape == (9, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(maps[0].any(axis=-1), tree.map_frames(0, "masks")[0].any(axis=-1))
    assert not maps[4, 17, 21].any()  # an outline, empty inside
    with (tmp_path / "inference.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["validation_trajectory_maps"] == "v0/trajectory.mp4"


@pytest.mark.parametrize("method", FORMATS)
def test_every_method_takes_movebench_by_the_command(tmp_path, capsys, method):
    movebench_tree.make_movebench(tmp_path / "bench", with_masks=method != "tora")
    command = [
        "evaluate",
        "export",
        "--method",
        method,
        "--bench",
        "movebench",
        "--num-frames",
        "5",
    ]
    places = ["--root", str(tmp_path / "bench"), "--out", str(tmp_path / "out")]
    assert main([*command, *places]) == 0
    assert f"inputs of {method} for 2 videos, 0 not exported" in capsys.readouterr().out
    assert (tmp_path / "out" / "multi" / "clip_multi" / "about.json").is_file()


def test_errors_of_exports(items, tmp_path):
    with pytest.raises(ValueError, match="expected one of tora"):
        export_benchmark(items, "sora", tmp_path)
    with pytest.raises(ValueError, match="expected at least 2"):
        export_benchmark(items, "tora", tmp_path, num_frames=1)
    without = [replace(items[0], video=None)]
    count, (fault,) = export_benchmark(without, "tora", tmp_path)
    assert count == 0 and "no first frame" in fault.reason
