from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import Tracks
from flashmotion_jax.trajectory.formats import read_ati, write_ati


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_reads_what_atis_editor_writes(tmp_path: Path):
    torch = pytest.importorskip("torch")
    # Its layout: [N, 121, 1, 3], x, y and visible, all times 8, as the bytes of an npz.
    points = np.zeros((2, 121, 1, 3), np.float32)
    points[0, :, 0] = [10.5, 20.25, 1]
    points[1, :50, 0] = [3, 4, 1]
    for array in (points, points.swapaxes(0, 1)):
        content = io.BytesIO()
        np.savez_compressed(content, array=8 * array)
        torch.save(content.getvalue(), tmp_path / "01.pth")
        tracks = read_ati(tmp_path / "01.pth")
        assert tracks.points_FN2.shape == (121, 2, 2)
        assert tracks.points_FN2[7].tolist() == [[10.5, 20.25], [3, 4]]
        assert tracks.visible_FN.sum(axis=0).tolist() == [121, 50]


def test_round_trip_resamples_to_121_samples(tmp_path: Path):
    pytest.importorskip("torch")
    x = np.arange(61.0)[:, None]
    points = np.stack([x, 100 - x], axis=-1)
    write_ati(Tracks(points, np.ones((61, 1), bool)), tmp_path / "new.pth")
    tracks = read_ati(tmp_path / "new.pth")
    np.testing.assert_allclose(tracks.points_FN2[:, 0, 0], np.linspace(0, 60, 121), atol=1e-4)
    assert tracks.visible_FN.all()


def test_wrong_and_malicious_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save(torch.zeros(3), "tensor.pth")
    torch.save(b"no npz", "bytes.pth")
    torch.save(Malicious(), "malicious.pth")
    Path("text.pth").write_text("text")
    for name in ("tensor.pth", "bytes.pth", "malicious.pth", "text.pth", "missing.pth"):
        with pytest.raises(ValueError, match=f"{name} is not an ATI track file"):
            read_ati(name)
    assert not Path("executed").exists()
    content = io.BytesIO()
    np.savez(content, array=np.zeros((2, 81, 1, 3), np.float32))
    torch.save(content.getvalue(), "short.pth")
    with pytest.raises(ValueError, match=r"expected \[N, 121, 1, 3\]"):
        read_ati("short.pth")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 121, 1, 2), np.float32), r"\[2, 121, 1, 2\], expected \[N, 121, 1, 3\]"),
        (np.zeros((2, 121, 1), np.float32), "expected"),
        (np.full((2, 121, 1, 3), b"a", "S3"), "expected an array of numbers"),
        (np.zeros((2, 121, 1, 3), complex), "expected an array of numbers"),
    ],
)
def test_other_arrays_that_fuzzing_found(tmp_path: Path, array, message):
    torch = pytest.importorskip("torch")
    content = io.BytesIO()
    np.savez(content, array=array)
    torch.save(content.getvalue(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        read_ati(tmp_path / "a.pth")
