"""The example that draws boxes in Python, on a small random model."""

from __future__ import annotations

import sys

import imageio.v3 as iio
import pytest

from examples import own_trajectory
from flashmotion_jax.config import SamplingConfig
from helpers import tiny


@pytest.mark.filterwarnings("ignore:the prompt")  # is longer than the random model reads
def test_two_trajectories_next_to_their_maps(tmp_path, monkeypatch, capsys):
    sampling = SamplingConfig(height=64, width=64, num_frames=17, fps=8)
    model = tiny.save_checkpoint(tmp_path / "model", sampling)
    out = tmp_path / "shown.webp"
    monkeypatch.setattr(sys, "argv", ["own_trajectory.py", str(model), str(out)])
    assert own_trajectory.main() == 0
    # Two rows of a map and a video, four pixels for one.
    assert iio.imread(out, index=...).shape[:3] == (17, 2 * 256, 2 * 256)
    assert "2 videos next to their maps, 17 frames" in capsys.readouterr().out


def test_missing_model_is_reported(tmp_path, monkeypatch, capsys):
    out = tmp_path / "shown.webp"
    monkeypatch.setattr(sys, "argv", ["own_trajectory.py", str(tmp_path / "none"), str(out)])
    assert own_trajectory.main() == 2
    assert "none" in capsys.readouterr().err and not out.exists()
