from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from flashmotion_jax.checkpoints import arrays, components
from flashmotion_jax.checkpoints.models import load_models
from flashmotion_jax.config import ModelsConfig, SamplingConfig
from flashmotion_jax.config.adapters import ResNetAdapterConfig
from flashmotion_jax.config.sampling import RENAMED_KEYS
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.checksums import read_json, write_checksums, write_json
from flashmotion_jax.runtime.errors import UserError
from helpers import tiny


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A whole checkpoint, never changed."""
    return tiny.save_checkpoint(tmp_path_factory.mktemp("saved") / "model", SamplingConfig(fps=12))


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "model")


def values(module):
    return {
        name: variable.get_value() for name, variable in components.flat_parameters(module).items()
    }


def save_dit(folder, dit, dtype="float32", **options):
    readers = components.parameter_readers(dit)
    components.save_component(folder, "dit", dit.config, readers, dtype, **options)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], strict=True)


def test_float32_comes_back_bit_for_bit(tmp_path):
    dit = tiny.make_dit()
    components.write_sampling(tmp_path, SamplingConfig())
    save_dit(tmp_path, dit)
    loaded = components.load_component(tmp_path, "dit", "float32")
    assert loaded.config == dit.config
    assert_same(values(loaded), values(dit))


def test_compressed_weights_come_back_bit_for_bit_from_fewer_bytes(tmp_path):
    dit = tiny.make_dit()
    sizes = []
    for compress in (False, True):
        folder = tmp_path / str(compress)
        components.write_sampling(folder, SamplingConfig())
        save_dit(folder, dit, compress=compress)
        assert_same(values(components.load_component(folder, "dit", "float32")), values(dit))
        sizes.append(components.read_component(folder, "dit").num_bytes)
    assert sizes[1] < sizes[0]


def test_small_arrays_share_files(saved):
    files = [file for file in (saved / "dit").rglob("*") if file.is_file()]
    assert len(files) < len(values(components.load_component(saved, "dit", "float32"))) / 2


def test_bfloat16_is_for_matmuls_alone_and_rounded_once(tmp_path):
    dit = tiny.make_dit()
    components.write_sampling(tmp_path, SamplingConfig())
    save_dit(tmp_path, dit, "bfloat16")
    expected = {
        name: array.astype(array.dtype if is_sensitive(name) else jnp.bfloat16)
        for name, array in values(dit).items()
    }
    assert_same(values(components.load_component(tmp_path, "dit", "bfloat16")), expected)
    widened = {name: array.astype(jnp.float32) for name, array in expected.items()}
    assert_same(values(components.load_component(tmp_path, "dit", "float32")), widened)


def is_sensitive(name):
    return any(word in name for word in ("norm", "modulation", "time_", "head."))


def test_load_models_gives_models_that_run(saved):
    models = load_models(saved, "float32")
    assert models.config == ModelsConfig(
        dit=tiny.DIT,
        vae=tiny.VAE_CONFIG,
        text_encoder=tiny.TEXT,
        sampling=SamplingConfig(fps=12),
        tiny_vae=tiny.TINY_VAE,
    )
    ids, mask = models.tokenizer(["a red ball"], 16)
    text = models.text_encoder(ids, mask)
    assert text.shape == (1, 16, 32)
    assert jnp.isfinite(text).all()
    assert models.dit.config == tiny.DIT
    assert models.vae.config == tiny.VAE_CONFIG
    assert models.tiny_vae.config == tiny.TINY_VAE


@pytest.mark.parametrize("kind", [*components.MODELS, "adapters/resnet", "adapters/controlnet"])
def test_components_load_alone(saved, kind):
    module = components.load_component(saved, kind, "bfloat16")
    assert all(isinstance(array, jax.Array) for array in values(module).values())


def test_weights_are_read_to_their_place_on_the_mesh(saved):
    mesh = sharding.make_mesh(fsdp=4)
    with jax.set_mesh(mesh):
        dit = components.load_component(saved, "dit", "float32")
    specs = {name: array.sharding.spec for name, array in values(dit).items()}
    assert specs == {
        name: sharding.parameter_spec(variable, mesh)
        for name, variable in components.flat_parameters(dit).items()
    }
    assert "fsdp" in specs["blocks.ffn.up.kernel"]
    assert_same(values(dit), values(components.load_component(saved, "dit", "float32")))


def test_keys_name_the_weights_wherever_they_are(tmp_path):
    components.write_sampling(tmp_path, SamplingConfig())
    keys = []
    for dit in (tiny.make_dit(), tiny.make_dit(), tiny.make_dit(seed=1)):
        save_dit(tmp_path, dit, overwrite=True)
        keys.append(components.read_component(tmp_path, "dit").key)
    assert keys[0] == keys[1] != keys[2]


def test_orbax_alone_can_read_the_arrays(saved):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(saved / "vae" / "params").item_metadata.tree
    assert tree["conv1.kernel"].shape == (96, 96)


def test_one_array_comes_back_in_the_stored_dtype(saved):
    array = arrays.read_array(saved / "vae" / "params", "conv2.kernel")
    assert isinstance(array, np.ndarray)
    assert (array.shape, array.dtype) == ((48, 48), np.float32)


def test_existing_component_stays_unless_overwritten(folder):
    before = values(components.load_component(folder, "dit", "float32"))
    dit = tiny.make_dit(seed=5)
    with pytest.raises(ValueError, match=r"exists.*overwrite"):
        save_dit(folder, dit)
    assert_same(values(components.load_component(folder, "dit", "float32")), before)
    save_dit(folder, dit, overwrite=True)
    assert_same(values(components.load_component(folder, "dit", "float32")), values(dit))
    assert not list(folder.glob(".*"))


def test_failed_write_leaves_what_was_there(folder):
    before = values(components.load_component(folder, "dit", "float32"))
    readers = dict(components.parameter_readers(tiny.make_dit()))
    readers["head.head.kernel"] = lambda: np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=r"head\.head\.kernel has shape \(3, 3\)"):
        components.save_component(folder, "dit", tiny.DIT, readers, "float32", overwrite=True)
    assert_same(values(components.load_component(folder, "dit", "float32")), before)
    assert not list(folder.glob(".*"))


def test_names_of_another_module_raise(tmp_path):
    readers = dict(components.parameter_readers(tiny.make_dit()))
    readers["extra"] = readers.pop("head.modulation")
    with pytest.raises(ValueError, match=r"missing head\.modulation; unknown extra"):
        components.save_component(tmp_path, "dit", tiny.DIT, readers, "float32")
    assert not list(tmp_path.iterdir())


def test_full_disk_is_found_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="1,000 free"):
        save_dit(tmp_path, tiny.make_dit())
    assert not list(tmp_path.iterdir())


def test_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    def save(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing")

    monkeypatch.setattr(ocp.Checkpointer, "save", save)
    with pytest.raises(OSError, match="disk is full"):
        save_dit(tmp_path, tiny.make_dit())
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_run_are_never_read(tmp_path):
    code = """
import os, sys
from helpers import tiny
from flashmotion_jax.config import SamplingConfig, to_dict
from flashmotion_jax.checkpoints import components
components.write_sampling(sys.argv[1], SamplingConfig())
readers = dict(components.parameter_readers(tiny.make_dit()))
readers["patch_embedding.kernel"] = lambda: os._exit(9)
components.save_component(sys.argv[1], "dit", tiny.DIT, readers, "float32")
"""
    path = {"PYTHONPATH": ":".join(sys.path), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "model"], env=path, check=False)
    assert run.returncode == 9
    assert [file.name[:5] for file in (tmp_path / "model").glob(".*")] == [".dit."]
    with pytest.raises(ValueError, match="has no dit"):
        components.load_component(tmp_path / "model", "dit")
    save_dit(tmp_path / "model", tiny.make_dit())
    components.load_component(tmp_path / "model", "dit")


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist.*flashmotion convert"):
        load_models(tmp_path / "nowhere")


def test_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"is not a folder with a model\.json"):
        components.load_component(tmp_path, "dit")


def test_a_model_json_that_was_edited_by_hand(folder):
    file = folder / "model.json"
    file.write_text(file.read_text().replace('"fps": 12', '"fps": 13'))
    with pytest.raises(ValueError, match=r"changed after it was written.*delete its"):
        components.open_checkpoint(folder)
    values = json.loads(file.read_text())
    del values["checksum"]
    file.write_text(json.dumps(values))
    assert components.open_checkpoint(folder).config.sampling.fps == 13


def test_unknown_version(folder):
    file = folder / "model.json"
    file.write_text(json.dumps({"format": "flashmotion_jax", "version": 7}))
    with pytest.raises(ValueError, match=r"version 7; expected 'flashmotion_jax', version 1"):
        components.open_checkpoint(folder)


def test_checkpoints_that_call_the_map_kind_maps_are_still_read(folder):
    file = folder / "model.json"
    values = read_json(file)
    del values["sampling"]["map_kind"]
    values["sampling"]["maps"] = "filled_box"
    file.write_text(json.dumps(values))
    assert components.read_sampling(folder).map_kind == "filled_box"


@pytest.mark.parametrize("kind", ["dit", "vae", "text_encoder", "adapters/resnet"])
def test_missing_component(folder, kind):
    shutil.rmtree(folder / kind)
    with pytest.raises(ValueError, match=f"has no {kind}, only.*flashmotion convert"):
        components.open_checkpoint(folder, "resnet")


def test_missing_tokenizer(folder):
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(ValueError, match=r"tokenizer\.json does not exist"):
        components.open_checkpoint(folder)


def test_unknown_component(saved):
    with pytest.raises(ValueError, match="expected one of dit, vae"):
        components.load_component(saved, "unet")


def test_unknown_dtype(saved):
    with pytest.raises(ValueError, match="dtype='float17'; expected"):
        components.load_component(saved, "dit", "float17")


@pytest.mark.parametrize("version", ["with checksums", "of an earlier version"])
@pytest.mark.parametrize("damage", ["cut", "remove", "empty"])
def test_incomplete_weights(folder, damage, version):
    message = "differs from what was written" if damage == "cut" else "is missing"
    if version == "of an earlier version":
        (folder / "dit" / "checksums.json").unlink()
        message = r"params holds [\d,]+ of [\d,]+ bytes"
    params = folder / "dit" / "params"
    files = (file for file in params.rglob("*") if file.is_file())
    largest = max(files, key=lambda file: file.stat().st_size)
    if damage == "cut":
        largest.write_bytes(largest.read_bytes()[:-100])
    elif damage == "remove":
        largest.unlink()
    else:
        shutil.rmtree(params)
    with pytest.raises(ValueError, match=message):
        components.load_component(folder, "dit")


def test_weights_that_orbax_cannot_read(saved, monkeypatch):
    def restore(*args, **kwargs):
        raise Exception("Encountered error while reading array index")

    monkeypatch.setattr(ocp.Checkpointer, "restore", restore)
    with pytest.raises(ValueError, match="is damaged"):
        components.load_component(saved, "dit")
    with pytest.raises(ValueError, match="is damaged"):
        arrays.read_array(saved / "dit" / "params", "head.modulation")


def test_configuration_that_is_cut_off(folder):
    file = folder / "vae" / "config.json"
    file.write_text(file.read_text()[:40])
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        components.load_component(folder, "vae")


def edit(file, **changes):
    """Writes other values, as a converter with a bug would: with the right checksums."""
    write_json(file, read_json(file) | changes)
    write_checksums(file.parent)


def test_configuration_of_another_component(folder):
    edit(folder / "vae" / "config.json", kind="dit")
    with pytest.raises(ValueError, match="not the configuration of a component vae"):
        components.load_component(folder, "vae")


def test_configuration_with_other_sizes(folder):
    config = dataclasses.asdict(dataclasses.replace(tiny.DIT, ffn_dim=65))
    edit(folder / "dit" / "config.json", config=config)
    with pytest.raises(ValueError, match=r"blocks\.ffn\..* has shape .*64.*asks for .*65"):
        components.load_component(folder, "dit")


def test_adapter_of_another_dit(folder):
    other = dataclasses.replace(tiny.DIT, dim=96)
    config = ResNetAdapterConfig(width=8)
    module = components.abstract_module("adapters/resnet", config, "float32", other)
    readers = components.parameter_readers(tiny.random_weights(module))
    components.save_component(
        folder,
        "adapters/resnet",
        config,
        readers,
        "float32",
        dit_config=other,
        overwrite=True,
    )
    with pytest.raises(ValueError, match=r"another DiT: dim=96 \(the DiT has 48\)"):
        components.load_component(folder, "adapters/resnet")


def test_adapter_without_its_dit_config(folder):
    edit(folder / "adapters/resnet" / "config.json", dit_config=None)
    with pytest.raises(ValueError, match="does not say which DiT"):
        components.load_component(folder, "adapters/resnet")


def test_sampling_of_older_checkpoints_is_read(tmp_path):
    """Keys of `model.json` were renamed; checkpoints with the old ones still load."""
    sampling = SamplingConfig(sampler="unipc", solver_steps=30)
    components.write_sampling(tmp_path, sampling)
    text = json.dumps(read_json(tmp_path / "model.json"))
    renamed = {new: old for old, new in RENAMED_KEYS.items()}
    for new, old in renamed.items():
        assert f'"{new}"' in text
        text = text.replace(f'"{new}"', f'"{old}"')
    (tmp_path / "model.json").write_text(text)
    assert components.read_sampling(tmp_path) == sampling


def test_checkpoints_from_before_grids_had_names_keep_theirs(tmp_path):
    components.write_sampling(tmp_path, SamplingConfig())
    values = read_json(tmp_path / "model.json")
    for name in ("solver_grid", "timestep_rounding", "resize", "size_from"):
        del values["sampling"][name]
    (tmp_path / "model.json").write_text(json.dumps(values))
    assert components.read_sampling(tmp_path) == SamplingConfig(solver_grid="diffusers")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dit", {"in_channels": 16}, "DiT has 16 latent channels and the VAE 48"),
        ("dit", {"text_dim": 64}, "DiT has 64 text channels and the text encoder 32"),
        ("tiny_vae", {"patch_size": 1}, "spatial_factor=16 and the tiny VAE 8"),
    ],
)
def test_models_that_do_not_belong_together(name, changes, message):
    models = {
        "dit": tiny.DIT,
        "vae": tiny.VAE_CONFIG,
        "text_encoder": tiny.TEXT,
        "tiny_vae": tiny.TINY_VAE,
    }
    models[name] = dataclasses.replace(models[name], **changes)
    with pytest.raises(UserError, match=message):
        ModelsConfig(**models, sampling=SamplingConfig())
