from __future__ import annotations

import copy
import dataclasses
import shutil

import numpy as np
import pytest

from examples.small_checkpoint import write_tokenizer
from flashmotion_jax.checkpoints import components
from flashmotion_jax.cli.convert import main
from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.converters import writer
from flashmotion_jax.converters.folders import LAYOUTS, open_folder
from flashmotion_jax.converters.reader import read_file
from flashmotion_jax.inference.pipeline import shipped_model
from helpers import tiny


@pytest.fixture(scope="module")
def converted(original, diffusers_folder, tmp_path_factory):
    """Both folders as project checkpoints in float32, by layout."""
    folders = {}
    for layout, source in (("original", original), ("diffusers", diffusers_folder)):
        folders[layout] = tmp_path_factory.mktemp(layout) / "model"
        assert main(["wan22", str(source), str(folders[layout]), "--dtype", "float32"]) == 0
    return folders


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip_is_bit_exact(layout, converted, request, tmp_path, capsys):
    source = request.getfixturevalue("original" if layout == "original" else "diffusers_folder")
    destination = tmp_path / "exported"
    assert main(["export", str(converted[layout]), str(destination), "--layout", layout]) == 0
    assert capsys.readouterr().out.endswith(f"in the {layout} layout to {destination}\n")
    for kind in LAYOUTS[layout]:
        before, _ = open_folder(source).read(kind)
        after, _ = open_folder(destination).read(kind)
        assert before.keys() == after.keys()
        for key, tensor in before.items():  # float32 holds the bfloat16 of the text encoder
            expected = tensor.read().astype(np.float32)
            np.testing.assert_array_equal(after[key].read(), expected, strict=True)
    tokenizer = open_folder(destination).tokenizer
    assert (tokenizer / "tokenizer.json").is_file()


def test_bfloat16_round_trip(diffusers_models, diffusers_folder, tmp_path):
    source = shutil.copytree(diffusers_folder, tmp_path / "source")
    model = copy.deepcopy(diffusers_models["text_encoder"]).bfloat16()
    model.save_pretrained(source / "text_encoder")
    text = ["--only", "text", "--dtype", "bfloat16"]
    assert main(["wan22", str(source), str(tmp_path / "model"), *text]) == 0
    exported = tmp_path / "exported"
    options = ["--layout", "diffusers", *text]
    assert main(["export", str(tmp_path / "model"), str(exported), *options]) == 0
    before = read_file(source / "text_encoder" / "model.safetensors")
    after = read_file(exported / "text_encoder" / "model.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        np.testing.assert_array_equal(after[key].read(), tensor.read(), strict=True)
    assert {tensor.dtype for tensor in after.values()} == {"bfloat16"}


def test_diffusers_loads_the_export_strictly(converted, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    destination = tmp_path / "exported"
    command = ["export", str(converted["original"]), str(destination), "--layout", "diffusers"]
    assert main(command) == 0
    for model, folder in (
        (diffusers.WanTransformer3DModel, "transformer"),
        (diffusers.AutoencoderKLWan, "vae"),
        (transformers.UMT5EncoderModel, "text_encoder"),
    ):
        loaded, info = model.from_pretrained(destination / folder, output_loading_info=True)
        assert not any(info.values()), info
        state = loaded.state_dict()
        for key, tensor in read_file(next((destination / folder).glob("*.safetensors"))).items():
            np.testing.assert_array_equal(state[key].numpy(), tensor.read())


def test_diffusers_opens_the_export_as_a_pipeline(converted, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    destination = tmp_path / "exported"
    command = ["export", str(converted["original"]), str(destination), "--layout", "diffusers"]
    assert main(command) == 0
    pipeline = diffusers.WanPipeline.from_pretrained(destination)
    assert pipeline.config.expand_timesteps
    assert pipeline.scheduler.config.flow_shift == 5.0
    assert pipeline.tokenizer("a red ball").input_ids[-1] == pipeline.tokenizer.eos_token_id


def test_shards(converted, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_BYTES", 500_000)
    destination = tmp_path / "exported"
    options = ["--layout", "original", "--only", "dit"]
    assert main(["export", str(converted["original"]), str(destination), *options]) == 0
    names = sorted(file.name for file in destination.glob("*.safetensors"))
    assert len(names) > 2
    assert names[0] == f"diffusion_pytorch_model-00001-of-{len(names):05}.safetensors"
    assert main(["wan22", str(destination), str(tmp_path / "model"), "--only", "dit"]) == 0


def test_safetensors_of_ours_open_in_the_library(converted, tmp_path):
    safetensors_torch = pytest.importorskip("safetensors.torch")
    torch = pytest.importorskip("torch")
    options = ["--layout", "original", "--only", "dit", "--dtype", "bfloat16"]
    assert main(["export", str(converted["original"]), str(tmp_path / "x"), *options]) == 0
    file = tmp_path / "x" / "diffusion_pytorch_model.safetensors"
    tensors = safetensors_torch.load_file(file)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    ours = {key: tensor.read().astype(np.float32) for key, tensor in read_file(file).items()}
    assert ours.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(ours[key], tensor.float().numpy())


def test_existing_destination_stays(converted, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["export", str(converted["original"]), str(tmp_path), "--layout", "original"]) == 2
    assert "exists; choose another name" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_damaged_source_leaves_nothing(converted, tmp_path, capsys):
    source = shutil.copytree(converted["original"], tmp_path / "model")
    largest = max((source / "vae").rglob("*"), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-10])
    assert main(["export", str(source), str(tmp_path / "x"), "--layout", "original"]) == 2
    assert "copy or convert it again" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"model"}


def test_full_disk(converted, tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")

    def save(*args):
        raise RuntimeError("PytorchStreamWriter failed writing file data/2: file write failed")

    monkeypatch.setattr(torch, "save", save)
    options = ["--layout", "original", "--only", "vae"]
    assert main(["export", str(converted["original"]), str(tmp_path / "x"), *options]) == 1
    assert "could not be written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_export_without_torch(converted, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    command = ["export", str(converted["original"]), str(tmp_path / "x")]
    assert main([*command, "--layout", "original"]) == 1
    assert "flashmotion_jax[convert]" in capsys.readouterr().err
    assert main([*command, "--layout", "diffusers"]) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_exported_and_imported_again_is_the_same_to_the_bit(
    tmp_path, capsys, layout, dtype
):
    """Also the text encoder of the original layout, whose file name says bfloat16."""
    pytest.importorskip("torch")
    model = tmp_path / "model"
    components.write_sampling(model, SamplingConfig())
    for kind, config in (("dit", tiny.DIT), ("vae", tiny.VAE_CONFIG), ("text_encoder", tiny.TEXT)):
        abstract = components.abstract_module(kind, config, dtype)
        readers = components.parameter_readers(tiny.random_weights(abstract))
        components.save_component(model, kind, config, readers, dtype)
    write_tokenizer(model / "tokenizer")
    export, again = str(tmp_path / "export"), str(tmp_path / "again")
    assert main(["export", str(model), export, "--layout", layout]) == 0
    notes = capsys.readouterr().out.splitlines()[:-1]
    lost = {"original": [], "diffusers": ["dit: text_len=16"]}[layout]
    assert notes == [f"note: the diffusers layout does not store {field}" for field in lost]
    assert main(["wan22", export, again, "--dtype", dtype]) == 0
    for kind in ("dit", "vae", "text_encoder"):
        first, second = (components.read_component(folder, kind) for folder in (model, again))
        assert first.key == second.key, kind
        if not any(kind in field for field in lost):
            assert first == dataclasses.replace(second, num_bytes=first.num_bytes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_dtype_asked_for_is_that_of_every_tensor(converted, tmp_path, layout):
    command = ["export", str(converted["original"]), str(tmp_path / "x"), "--layout", layout]
    assert main([*command, "--dtype", "bfloat16"]) == 0
    for kind in LAYOUTS[layout]:
        source, _ = open_folder(tmp_path / "x").read(kind)
        assert {tensor.dtype for tensor in source.values()} == {"bfloat16"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", ["resnet", "controlnet"])
def test_adapters_come_back_to_the_bit(tmp_path, name, suffix, dtype):
    pytest.importorskip("torch")
    model, kind = tmp_path / "model", f"adapters/{name}"
    components.write_sampling(model, SamplingConfig())
    config = {"resnet": ResNetAdapterConfig(width=16), "controlnet": ControlNetConfig()}[name]
    for folder in (model, tmp_path / "again"):
        abstract = components.abstract_module("dit", tiny.DIT, dtype)
        readers = components.parameter_readers(tiny.random_weights(abstract))
        components.write_sampling(folder, SamplingConfig())
        components.save_component(folder, "dit", tiny.DIT, readers, dtype)
    abstract = components.abstract_module(kind, config, dtype, tiny.DIT)
    readers = components.parameter_readers(tiny.random_weights(abstract))
    components.save_component(model, kind, config, readers, dtype, dit_config=tiny.DIT)
    file = str(tmp_path / f"adapter{suffix}")
    assert main(["export", str(model), file, "--adapter", name]) == 0
    assert main(["flashmotion", file, str(tmp_path / "again"), "--dtype", dtype]) == 0
    first, second = (components.read_component(tmp_path / x, kind) for x in ("model", "again"))
    assert (first.key, first.config) == (second.key, second.config)


def test_what_a_layout_cannot_store_is_said(tmp_path, capsys):
    command = ["export", str(shipped_model()), str(tmp_path / "x"), "--layout", "original"]
    assert main([*command, "--only", "dit"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "note: the original layout does not store dit: patch_size=(1, 1)"
    assert out[-1].startswith("wrote dit in the original layout")


def test_a_damaged_tokenizer_is_not_exported(converted, tmp_path, capsys):
    source = shutil.copytree(converted["original"], tmp_path / "model")
    file = source / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace("b", "c", 1))
    assert main(["export", str(source), str(tmp_path / "x"), "--layout", "diffusers"]) == 2
    assert "tokenizer.json differs from what was written" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"model"}
