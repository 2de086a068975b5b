"""The script that makes the checkpoint that ships, on small random models."""

from __future__ import annotations

import dataclasses
import shutil
import sys

import numpy as np
import pytest

from examples import ship_sprites
from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.models import load_models
from flashmotion_jax.config import SamplingConfig
from helpers import tiny


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ship_sprites.py", "shipped", "--stored", "stored"])
    model = tiny.save_checkpoint(ship_sprites.RUNS / "stage3_resnet" / "model", SamplingConfig())
    for name in ("stage3_controlnet", "stage1_box_resnet", "stage1_box_controlnet"):
        shutil.copytree(model, ship_sprites.RUNS / name / "model")
    return tmp_path


def test_two_checkpoints_in_bfloat16_with_both_adapters(runs):
    assert ship_sprites.main() == 0
    for kind in ("dit", "vae", "text_encoder", "adapters/resnet", "adapters/controlnet"):
        for folder in ("shipped", "stored"):
            assert components.read_component(folder, kind).dtype == "bfloat16"
    source = load_models(ship_sprites.RUNS / "stage3_resnet" / "model", "bfloat16")
    shipped = load_models("shipped", "bfloat16")
    for name, found in components.flat_parameters(shipped.dit).items():
        expected = components.flat_parameters(source.dit)[name]
        np.testing.assert_array_equal(found.get_value(), expected.get_value())
    written = [file for file in (runs / "shipped").rglob("*") if file.is_file()]
    assert not any(str(runs).encode() in file.read_bytes() for file in written)
    assert shipped.tiny_vae is not None


def test_the_tiny_decoder_is_that_of_its_own_run_and_of_the_same_latents(runs, capsys):
    models = [one / "model" for one in ship_sprites.RUNS.iterdir()]
    own = ship_sprites.RUNS / "tiny_decoder" / "model"
    shutil.copytree(models[0], own)
    for model in models:
        shutil.rmtree(model / "tiny_vae")
    assert ship_sprites.tiny_decoder(models[0]) == own
    component = components.read_component(own, "vae")
    config = dataclasses.replace(component.config, latents_std=(2.0,) * 48)
    readers = components.parameter_readers(components.load_component(own, "vae", "float32"))
    components.save_component(own, "vae", config, readers, "float32", overwrite=True)
    assert ship_sprites.main() == 2
    assert "for the latents of another VAE" in capsys.readouterr().err
    shutil.rmtree(own)
    assert ship_sprites.tiny_decoder(models[0]) is None


def test_too_large_a_checkpoint_leaves_nothing(runs, monkeypatch, capsys):
    monkeypatch.setattr(ship_sprites, "LIMIT", 1000.0)
    assert ship_sprites.main() == 2
    assert "expected at most" in capsys.readouterr().err
    assert not (runs / "shipped").exists()


def test_missing_runs_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ship_sprites.py", "shipped"])
    assert ship_sprites.main() == 2
    assert "stage1_box_resnet" in capsys.readouterr().err
