from __future__ import annotations

import numpy as np
import pytest

from examples import small_checkpoint
from flashmotion_jax.cli.convert import main


def inspect(capsys, *arguments):
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_folder(original, capsys):
    text = inspect(capsys, original)
    assert "head.modulation  [1, 2, 96]  float32" in text
    assert "looks like dit: DiTConfig(dim=96" in text
    assert "looks like vae: VAEConfig(" in text
    assert "token_embedding.weight  [128, 64]  bfloat16" in text
    assert text.count(" 0 problems") == 3


def test_folder_with_a_missing_part(original, tmp_path, capsys):
    (tmp_path / "Wan2.2_VAE.pth").symlink_to(original / "Wan2.2_VAE.pth")
    text = inspect(capsys, tmp_path)
    assert "looks like vae" in text
    assert "dit: " in text
    assert "safetensors does not exist" in text


def test_unknown_folder(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no weights")
    assert main(["inspect", str(tmp_path)]) == 2
    assert "is not a Wan2.2 checkpoint" in capsys.readouterr().err


def test_single_file_under_its_own_names(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    content = {
        "generator": {"model.head.head.weight": torch.zeros(192, 3072), "odd": torch.ones(1)}
    }
    torch.save(content, tmp_path / "x.pt")
    text = inspect(capsys, tmp_path / "x.pt")
    assert "generator.model.head.head.weight  [192, 3072]  float32" in text
    assert "looks like dit" in text
    assert "1 of 1 tensors are used, 824 problems" in text
    assert "unused: generator.odd" in text
    assert "dit: missing: blocks.29.norm3.weight (for blocks.norm3.scale)" in text


def test_unknown_file(tmp_path, write_safetensors, capsys):
    write_safetensors(tmp_path / "x.safetensors", {"a.b": np.zeros((2, 3), np.float32)})
    text = inspect(capsys, tmp_path / "x.safetensors")
    assert "a.b  [2, 3]  float32" in text
    assert "no known component" in text
    text = inspect(capsys, tmp_path / "x.safetensors", "--component", "resnet")
    assert "looks like adapters/resnet" in text
    assert "unused: a.b" in text


def test_with_a_map(tmp_path, write_safetensors, capsys):
    rng = np.random.default_rng(0)
    tensors = small_checkpoint.random_tensors(iter([("enter.bias", (128,))]), rng)
    write_safetensors(tmp_path / "x.safetensors", tensors)
    (tmp_path / "map.json").write_text('{"stem.bias": "enter.bias"}')
    options = ["--component", "resnet", "--map", tmp_path / "map.json"]
    assert "1 of 1 tensors are used" in inspect(capsys, tmp_path / "x.safetensors", *options)
