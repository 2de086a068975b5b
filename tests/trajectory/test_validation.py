from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flashmotion_jax.runtime.limits import EDITOR, limited
from flashmotion_jax.trajectory.validation import MAX_PROBLEMS, find_problems

GOOD: dict[str, Any] = {
    "version": 1,
    "canvas": {"width": 4, "height": 2},
    "num_frames": 9,
    "fps": 24,
    "objects": [
        {
            "id": 1,
            "mask": {"size": [2, 4], "counts": [3, 5]},
            "keyframes": [
                {"frame": 0, "box": [0, 0, 0.5, 0.5]},
                {"frame": 8, "box": [0.5, 0.5, 1.5, 1], "ease": "out"},
            ],
        },
        {"id": 2, "color": "#00ff00", "keyframes": [{"frame": 3, "box": [0, 0, 0, 0]}]},
    ],
}
NAN, INFINITY = float("nan"), float("inf")


def with_value(path: list[str | int], value: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


def test_good_data_has_no_problems():
    assert find_problems(GOOD) == []


BOX = ["objects", 0, "keyframes", 1, "box"]
BOX_PLACE = "objects[0].keyframes[1].box"


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (["version"], 2, "version"),
        (["version"], "1", "version"),
        (["canvas"], [4, 2], "canvas"),
        (["canvas", "width"], 0, "canvas.width"),
        (["canvas", "height"], 2.0, "canvas.height"),
        (["num_frames"], 0, "num_frames"),
        (["num_frames"], True, "num_frames"),
        (["num_frames"], 8, "objects[0].keyframes[1].frame"),
        (["fps"], NAN, "fps"),
        (["fps"], 0, "fps"),
        (["sparse_frames"], [3, 3], "sparse_frames"),
        (["sparse_frames"], [9], "sparse_frames"),
        (["objects"], {}, "objects"),
        (["objects", 1], None, "objects[1]"),
        (["objects", 1, "id"], 1, "objects[1].id"),
        (["objects", 1, "id"], "2", "objects[1].id"),
        (["objects", 1, "name"], 3, "objects[1].name"),
        (["objects", 1, "color"], "green", "objects[1].color"),
        (["objects", 1, "color"], "#000000", "objects[1].color"),
        (["objects", 1, "color"], "#802020", "objects[1].color"),
        (["objects", 1, "keyframes"], [], "objects[1].keyframes"),
        (["objects", 0, "mask"], 3, "objects[0].mask"),
        (["objects", 0, "mask"], "mask.png", "objects[0].mask"),
        (["objects", 0, "mask", "size"], [2, "4"], "objects[0].mask.size"),
        (["objects", 0, "mask", "size"], [4, 2], "objects[0].mask"),
        (["objects", 0, "mask", "counts"], [3, 4], "objects[0].mask.counts"),
        (["objects", 0, "mask", "counts"], [9, -1], "objects[0].mask.counts"),
        (["objects", 0, "mask", "counts"], [8], "objects[0].mask"),
        (["objects", 0, "keyframes", 1, "frame"], 0, "objects[0].keyframes[1].frame"),
        (["objects", 0, "keyframes", 1, "frame"], 1.5, "objects[0].keyframes[1].frame"),
        (["objects", 0, "keyframes", 1, "ease"], "bounce", "objects[0].keyframes[1].ease"),
        (["objects", 0, "keyframes", 1, "ease"], ["in"], "objects[0].keyframes[1].ease"),
        (BOX, [0, 0, 1], BOX_PLACE),
        (BOX, [0.5, 0, 0.4, 1], BOX_PLACE),
        (BOX, [0, 0.5, 1, 0.4], BOX_PLACE),
        (BOX, [0, 0, NAN, 1], BOX_PLACE),
        (BOX, [0, 0, INFINITY, 1], BOX_PLACE),
        (BOX, [0, 0, "1", 1], BOX_PLACE),
        (BOX, [0, 0, 10**400, 1], BOX_PLACE),
        (BOX, [100, 50, 300, 200], BOX_PLACE),
    ],
)
def test_one_problem_names_its_place(path: list[str | int], value: Any, place: str):
    problems = find_problems(with_value(path, value))
    assert len(problems) == 1
    assert problems[0].startswith(f"{place}: ")


def test_unknown_keys_name_the_nearest_one():
    data = with_value(["objects", 0, "colr"], "#ffffff")
    (problem,) = find_problems(data)
    assert problem.startswith("objects[0].colr: unknown key, nearest is 'color'")


@pytest.mark.parametrize("key", ["version", "canvas", "num_frames", "fps", "objects"])
def test_missing_keys(key: str):
    data = {name: value for name, value in GOOD.items() if name != key}
    assert [problem.split(",")[0] for problem in find_problems(data)] == [f"{key}: missing"]


def test_all_problems_come_at_once():
    data = with_value(["version"], 7)
    data["canvas"]["width"] = None
    data["objects"][0]["keyframes"][0] = {"box": [1, 0, 0, 0], "fram": 3}
    data["objects"][1]["id"] = -1
    assert [problem.split(":")[0] for problem in find_problems(data)] == [
        "version",
        "canvas.width",
        "objects[0].keyframes[0].box",
        "objects[0].keyframes[0].fram",
        "objects[0].keyframes[0].frame",
        "objects[1].id",
    ]


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_other_data_is_one_problem(data: Any):
    (problem,) = find_problems(data)
    assert problem.startswith("file: ")


def test_masks_as_pngs(tmp_path: Path):
    Image.new("L", (4, 2), 255).save(tmp_path / "good.png")
    Image.new("L", (2, 2), 255).save(tmp_path / "small.png")
    Image.new("L", (4, 2), 0).save(tmp_path / "black.png")
    path = ["objects", 0, "mask"]
    assert find_problems(with_value(path, "good.png"), tmp_path) == []
    for name in ("small.png", "black.png", "missing.png", "../good.png"):
        (problem,) = find_problems(with_value(path, name), tmp_path)
        assert problem.startswith("objects[0].mask: ")


def test_the_number_and_length_of_problems_are_bounded():
    data = GOOD | {f"key{k}": k for k in range(100_000)} | {"k" * 3_000_000: 1}
    problems = find_problems(data)
    assert len(problems) == MAX_PROBLEMS and max(map(len, problems)) < 200
    (long,) = find_problems(GOOD | {"k" * 3_000_000: 1})
    assert len(long) < 200


def test_the_number_of_boxes_is_bounded():
    item = GOOD["objects"][0] | {"color": None, "mask": None}
    objects = [item | {"id": k + 1} for k in range(200)]
    data = GOOD | {"objects": objects, "num_frames": 9_000}
    (problem,) = find_problems(data)
    assert problem.startswith("objects: 200 objects on 9000 frames, expected at most 1048576 boxes")
    with limited(EDITOR):
        assert "262144 boxes" in find_problems(data | {"num_frames": 2_000})[0]
