from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import Tracks
from flashmotion_jax.trajectory.formats import read_wan_move, write_wan_move


def test_round_trip_and_movebenchs_layout(tmp_path: Path):
    points = np.random.default_rng(0).random((81, 3, 2)).astype(np.float32).astype(float)
    tracks = Tracks(points, points[..., 0] > 0.5)
    write_wan_move(tracks, tmp_path / "tracks.npy", tmp_path / "visibility.npy")
    stored = np.load(tmp_path / "tracks.npy"), np.load(tmp_path / "visibility.npy")
    assert [(array.shape, array.dtype) for array in stored] == [
        ((1, 81, 3, 2), np.float32),
        ((1, 81, 3), bool),
    ]
    back = read_wan_move(tmp_path / "tracks.npy", tmp_path / "visibility.npy")
    np.testing.assert_array_equal(back.points_FN2, points)
    np.testing.assert_array_equal(back.visible_FN, tracks.visible_FN)


def test_without_a_batch_and_without_visibility(tmp_path: Path):
    np.save(tmp_path / "tracks.npy", np.ones((5, 2, 2), np.float32))
    assert read_wan_move(tmp_path / "tracks.npy").visible_FN.tolist() == [[True, True]] * 5


def test_wrong_files(tmp_path: Path):
    np.save(tmp_path / "flat.npy", np.ones(3))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("text")
    with (tmp_path / "zip.npy").open("wb") as file:
        np.savez(file, np.ones((5, 2, 2)))
    for name in ("flat.npy", "objects.npy", "text.npy", "zip.npy", "missing.npy"):
        with pytest.raises(ValueError, match=r"npy|\[frames, points, 2\]"):
            read_wan_move(tmp_path / name)


@pytest.mark.parametrize(
    "array",
    [
        # Found by fuzzing: NumPy ends in a SystemError when it reads such text as a number.
        np.full((5, 2, 2), 0x7F7F7F7F, np.uint32).view("<U1"),
        np.full((5, 2, 2), b"1", "S3"),
        np.ones((5, 2, 2), complex),
        np.zeros((5, 2, 2), "M8[s]"),
        np.zeros((5, 2, 2), [("x", "f4")]),
    ],
)
def test_arrays_of_what_is_no_number(tmp_path: Path, array):
    np.save(tmp_path / "tracks.npy", array)
    with pytest.raises(UserError, match="expected an array of numbers"):
        read_wan_move(tmp_path / "tracks.npy")
