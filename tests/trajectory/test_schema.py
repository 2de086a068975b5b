from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import Canvas, Keyframe, Mask, TrackedObject, Trajectory
from flashmotion_jax.trajectory.formats import find_format


def trajectory(**changes: Any) -> Trajectory:
    mask = Mask.from_array(np.eye(30, 40, dtype=bool))
    ball = TrackedObject(1, (Keyframe(0, (0.1, 0.1, 0.3, 0.4), "smooth"),), "ball", mask=mask)
    kite = TrackedObject(4, (Keyframe(2, (0.5, 0.5, 0.9, 1.5)),), color="#0a0bFF")
    defaults = {"canvas": Canvas(40, 30), "num_frames": 9, "fps": 24.0, "objects": (ball, kite)}
    return Trajectory(**{**defaults, **changes})


def test_round_trip_through_the_file(tmp_path: Path):
    original = trajectory(sparse_frames=(0, 4, 8))
    original.save(tmp_path / "new" / "t.json")
    assert Trajectory.load(tmp_path / "new" / "t.json") == original
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["t.json"]


def test_files_that_write_colour_are_still_read():
    original = trajectory()
    data = original.to_dict()
    assert "colour" not in data["objects"][1]
    data["objects"][1]["colour"] = data["objects"][1].pop("color")
    assert Trajectory.from_dict(data) == original

    data["objects"][1]["color"] = "#ffffff"
    with pytest.raises(UserError, match=r"objects\[1\]\.colour: unknown key, nearest is 'color'"):
        Trajectory.from_dict(data)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str):
    trajectory().save(tmp_path / "t.json")
    text = (tmp_path / "t.json").read_text(encoding="utf-8")
    (tmp_path / "t.json").write_text(text, encoding=encoding)
    assert find_format(tmp_path / "t.json").name == "trajectory"
    assert Trajectory.load(tmp_path / "t.json") == trajectory()


def test_lists_of_numbers_stay_on_one_line_and_names_stay_as_they_are(tmp_path: Path):
    item = TrackedObject(1, (Keyframe(0, (0.0, -1e-7, 1.0, 1.0)),), "a [1,  2] b")
    trajectory(objects=(item,)).save(tmp_path / "t.json")
    assert '"box": [0.0,-1e-07,1.0,1.0]' in (tmp_path / "t.json").read_text()
    assert Trajectory.load(tmp_path / "t.json").objects == (item,)


def test_masks_may_be_pngs_in_the_folder_of_the_file(tmp_path: Path):
    original = trajectory()
    data = original.to_dict()
    pixels = np.eye(30, 40, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "ball.png")
    data["objects"][0]["mask"] = "ball.png"
    (tmp_path / "t.json").write_text(json.dumps(data))
    assert Trajectory.load(tmp_path / "t.json") == original


def test_numpy_numbers_are_numbers(tmp_path: Path):
    box = tuple(np.float32([0, 0, 0.5, 0.5]))
    item = TrackedObject(1, (Keyframe(np.int64(3), box),))
    trajectory(objects=(item,)).save(tmp_path / "t.json")
    assert Trajectory.load(tmp_path / "t.json").objects == (item,)


def test_boxes_rest_outside_the_keyframes_and_stretch():
    keyframes = (Keyframe(2, (0.0, 0.0, 0.1, 0.1)), Keyframe(6, (0.4, 0.0, 0.5, 0.1)))
    moving = trajectory(objects=(TrackedObject(1, keyframes),))
    x0 = moving.boxes()[0, :, 0]
    np.testing.assert_allclose(x0, [0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4], atol=1e-15)
    assert moving.boxes().dtype == np.float64
    np.testing.assert_allclose(moving.boxes(17)[0, ::2, 0], x0, atol=1e-15)
    assert trajectory(objects=()).boxes().shape == (0, 9, 4)


def test_drawn_frames_keep_their_place_when_stretched():
    assert trajectory().drawn(5).all()
    sparse = trajectory(sparse_frames=(1, 8))
    assert np.flatnonzero(sparse.drawn()).tolist() == [0, 1, 8]
    assert np.flatnonzero(sparse.drawn(17)).tolist() == [0, 2, 16]
    assert np.flatnonzero(sparse.drawn(3)).tolist() == [0, 1, 2]
    assert np.flatnonzero(sparse.drawn(1)).tolist() == [0]


def test_rgb():
    ball, kite = trajectory().objects
    assert ball.rgb == (128, 32, 32)
    assert kite.rgb == (10, 11, 255)


def test_construction_validates():
    with pytest.raises(ValueError, match=r"objects\[0\]\.keyframes: "):
        trajectory(objects=(TrackedObject(1, ()),))
    with pytest.raises(ValueError, match="num_frames"):
        trajectory(num_frames=0)


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000])
def test_load_names_a_file_that_is_not_json(tmp_path: Path, text: str):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=r"t\.json is not JSON"):
        Trajectory.load(tmp_path / "t.json")


def test_load_names_an_invalid_and_a_missing_file(tmp_path: Path):
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(ValueError, match=r"t\.json: problems in the trajectory: 1\n"):
        Trajectory.load(tmp_path / "t.json")
    with pytest.raises(ValueError, match=r"no trajectory at .*other\.json"):
        Trajectory.load(tmp_path / "other.json")


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trajectory().save(tmp_path / "t.json")
    before = (tmp_path / "t.json").read_bytes()

    def full(self: Path, *_args: Any, **_keywords: Any) -> int:
        self.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        trajectory(num_frames=10).save(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_importing_the_package_does_not_import_jax():
    code = "import sys, flashmotion_jax.trajectory.formats; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
