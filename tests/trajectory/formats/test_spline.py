from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flashmotion_jax.trajectory import Tracks
from flashmotion_jax.trajectory.formats import find_format, read_spline, write_spline

WAYS = [[{"x": 1, "y": 2}, {"x": 3.5, "y": 4}], [{"x": 5, "y": 6}]]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(WAYS),
        json.dumps(json.dumps(WAYS)),
        json.dumps(WAYS).replace('"', "'"),
        json.dumps([json.dumps(way) for way in WAYS]),
        # Two editors' outputs, the first a list of one track, appended to each other.
        json.dumps([json.dumps([WAYS[0]]), json.dumps(WAYS[1])]),
        json.dumps([json.dumps([json.dumps(WAYS[0])]), json.dumps(WAYS[1])]),
        json.dumps([json.dumps(json.dumps(WAYS[0])), WAYS[1]]),
        json.dumps([[WAYS[0]], [[WAYS[1]]]]),
        json.dumps(json.dumps([WAYS])),
        f"{json.dumps(WAYS[0])}\n{json.dumps(WAYS[1])}\n",
        f"{json.dumps(WAYS[0])}, {json.dumps(WAYS[1])}",
    ],
)
def test_forms_of_the_text(tmp_path: Path, text: str):
    (tmp_path / "splines.json").write_text(text)
    for source in (text, tmp_path / "splines.json", str(tmp_path / "splines.json")):
        tracks = read_spline(source)
        assert tracks.points_FN2[0].tolist() == [[1, 2], [5, 6]]
        assert tracks.points_FN2[1, 0].tolist() == [3.5, 4]
        assert tracks.visible_FN.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str):
    (tmp_path / "splines.json").write_text(json.dumps(WAYS), encoding=encoding)
    assert find_format(tmp_path / "splines.json").name == "spline"
    assert read_spline(tmp_path / "splines.json").points_FN2[0].tolist() == [[1, 2], [5, 6]]


def test_a_single_track():
    assert read_spline(json.dumps(WAYS[0])).points_FN2.shape == (2, 1, 2)


def test_round_trip(tmp_path: Path):
    tracks = read_spline(json.dumps(WAYS))
    write_spline(tracks, tmp_path / "splines.json")
    assert json.loads((tmp_path / "splines.json").read_text()) == WAYS
    late = Tracks(np.zeros((2, 2, 2)), np.array([[True, False], [True, True]]))
    with pytest.raises(ValueError, match="track 1 is not visible on frame 0"):
        write_spline(late, tmp_path / "late.json")
    assert not (tmp_path / "late.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[[]]",
        "[3]",
        '[[{"x": 1}]]',
        '[[{"x": 1, "y": NaN}]]',
        "[{",
        "[3, [4]]",
        "[" * 40 + "]" * 40,
        '"a"',
        "missing.json",
    ],
)
def test_wrong_text(text: str):
    with pytest.raises(ValueError, match=r'(spline|missing).*expected .*"x": 10'):
        read_spline(text)
