"""`examples/measure_sprites.py` with a small random model."""

from __future__ import annotations

import json
import sys

import pytest

from examples import measure_sprites
from flashmotion_jax.config import SamplingConfig
from helpers import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sampling = SamplingConfig(height=64, width=64, num_frames=17, fps=8, denoising_steps=(1000,))
    return tiny.save_checkpoint(tmp_path_factory.mktemp("sprites") / "model", sampling)


@pytest.mark.filterwarnings("ignore:the prompt .* was truncated")
def test_a_table_of_systems_with_one_and_two_seeds(model, tmp_path, monkeypatch, capsys):
    arguments = [f"one=resnet:{model}", f"two=resnet:{model},{model}", "--per-group", "1"]
    monkeypatch.setattr(sys, "argv", ["measure_sprites.py", str(tmp_path), *arguments])
    monkeypatch.setattr(measure_sprites, "RESAMPLES", 5)
    assert measure_sprites.main() == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table) == {"one", "two"}
    assert table["one"]["box_iou"] == table["two"]["box_iou"]
    for figures in table.values():
        assert {"box_iou", "sharpness", "video_distance", "latent_distance"} <= set(figures)
        assert figures["mask_iou"]["count"] == 6
    assert "6 clips, 2 systems" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.npz"))) == 1  # measured once, read three times


@pytest.mark.filterwarnings("ignore:the prompt .* was truncated")
def test_references_and_an_adapter_of_another_run(model, tmp_path, monkeypatch):
    arguments = [f"auto=autoencoder:{model}", f"held=held:{model}", f"both=resnet:{model}+{model}"]
    monkeypatch.setattr(sys, "argv", ["m", str(tmp_path), *arguments, "--per-group", "1"])
    monkeypatch.setattr(measure_sprites, "RESAMPLES", 5)
    assert measure_sprites.main() == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["held"]["motion"]["estimate"] == 0
    assert table["held"]["image_distance"]["estimate"] < table["auto"]["image_distance"]["estimate"]
    assert len(list(tmp_path.glob("*.npz"))) == 3
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--against", "auto"])
    assert measure_sprites.main() == 0
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert set(differences) == {"held - auto", "both - auto"}
    for name in ("psnr", "image_distance"):
        expected = table["held"][name]["estimate"] - table["auto"][name]["estimate"]
        assert differences["held - auto"][name]["estimate"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["full"], "expected NAME="),
        (["full=resnet:missing"], "missing"),
        (["full=resnet:missing", "--against", "slow"], "--against 'slow'; expected one of full"),
    ],
)
def test_bad_input_is_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["measure_sprites.py", str(tmp_path), *arguments])
    assert measure_sprites.main() == 2
    assert message in capsys.readouterr().err
