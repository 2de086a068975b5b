from __future__ import annotations

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from examples import small_checkpoint
from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.models import load_models
from flashmotion_jax.cli.convert import main
from flashmotion_jax.config import ModelsConfig, SamplingConfig
from flashmotion_jax.converters.importing import convert_file
from flashmotion_jax.converters.names import read_names
from flashmotion_jax.converters.reader import read_file
from flashmotion_jax.converters.recognition import conventions_of

ALL = {"dit", "vae", "text_encoder", "tokenizer", "model.json"}


@pytest.fixture
def source(original, tmp_path):
    """A copy of the original folder to damage."""
    return shutil.copytree(original, tmp_path / "source")


@pytest.fixture(scope="session")
def converted(original, tmp_path_factory):
    """The original folder as a project checkpoint in float32, never changed."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    assert main(["wan22", str(original), str(folder), "--dtype", "float32"]) == 0
    return folder


def convert(source, destination, *options):
    return main(["wan22", str(source), str(destination), *options])


def names_in(folder):
    return {file.name for file in folder.iterdir()}


def edit_tensors(file, write_safetensors, change):
    tensors = {key: tensor.read() for key, tensor in read_file(file).items()}
    change(tensors)
    write_safetensors(file, tensors)


def test_original_folder(original, converted, capsys):
    assert names_in(converted) == ALL
    models = load_models(converted, "float32")
    assert models.config == ModelsConfig(
        dit=small_checkpoint.DIT,
        vae=small_checkpoint.VAE,
        text_encoder=small_checkpoint.TEXT,
        sampling=SamplingConfig(sampler="unipc"),
    )
    weight = read_file(original / "diffusion_pytorch_model.safetensors.index.json")
    kernel = models.dit.blocks.ffn.up.kernel[1]
    np.testing.assert_array_equal(kernel, weight["blocks.1.ffn.0.weight"].read().T)


def test_default_dtype_and_last_line(original, tmp_path, capsys):
    assert convert(original, tmp_path / "model", "--only", "vae,text") == 0
    assert capsys.readouterr().out == (
        f"wrote vae, text_encoder (bfloat16) to {tmp_path / 'model'}\n"
    )
    assert names_in(tmp_path / "model") == ALL - {"dit"}
    assert components.read_component(tmp_path / "model", "vae").dtype == "bfloat16"


def test_parts_are_added_and_never_replaced_unasked(original, tmp_path, capsys):
    destination = tmp_path / "model"
    assert convert(original, destination, "--only", "dit") == 0
    assert convert(original, destination, "--only", "text") == 0
    key = components.read_component(destination, "dit").key
    assert convert(original, destination, "--only", "dit,vae") == 2
    assert "has dit; add --overwrite" in capsys.readouterr().err
    assert not (destination / "vae").exists()
    again = ("--overwrite", "--dtype", "float32")
    assert convert(original, destination, "--only", "dit,vae", *again) == 0
    assert names_in(destination) == ALL
    assert components.read_component(destination, "dit").key != key


def test_folder_of_something_else_is_never_touched(original, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert convert(original, tmp_path, "--overwrite") == 2
    assert "is not a checkpoint of this project" in capsys.readouterr().err
    assert names_in(tmp_path) == {"file"}


def test_diffusers_folder_gives_the_same_model(diffusers_models, diffusers_folder, tmp_path):
    torch = pytest.importorskip("torch")
    assert convert(diffusers_folder, tmp_path / "model", "--dtype", "float32") == 0
    dit = components.load_component(tmp_path / "model", "dit", "float32")
    encoder = components.load_component(tmp_path / "model", "text_encoder", "float32")
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 2, 4, 4, 48), dtype=np.float32)
    text = rng.standard_normal((1, 7, 32), dtype=np.float32)
    ids, mask = np.array([[5, 17, 1, 0]]), np.array([[1, 1, 1, 0]])
    channels_first = torch.from_numpy(np.moveaxis(latents, -1, 1).copy())
    with torch.no_grad():
        velocity = diffusers_models["transformer"](
            channels_first, torch.tensor([700.0]), torch.from_numpy(text), return_dict=False
        )[0]
        embedding = diffusers_models["text_encoder"](
            torch.from_numpy(ids), torch.from_numpy(mask)
        ).last_hidden_state[:, :3]
    timesteps = jnp.full((1, 2), 700.0)
    np.testing.assert_allclose(
        dit(jnp.asarray(latents), timesteps, jnp.asarray(text)),
        np.moveaxis(velocity.numpy(), 1, -1),
        atol=2e-5,
    )
    np.testing.assert_allclose(encoder(ids, mask)[:, :3], embedding, atol=1e-5)


def test_all_problems_of_all_components_at_once(source, tmp_path, write_safetensors, capsys):
    torch = pytest.importorskip("torch")

    def change(tensors):
        if "head.modulation" in tensors:
            tensors["extra.weight"] = np.zeros(3, np.float32)
            tensors["head.modulation"] = np.zeros((2, 96), np.float32)
        if "blocks.0.norm3.bias" in tensors:
            tensors["blocks.0.norm3.bias"][5] = np.nan

        if "blocks.1.norm3.bias" in tensors:
            tensors["blocks.1.norm3.bias"] = ((96,), "F4_NEW", bytes(96))

    for file in source.glob("*.safetensors"):
        edit_tensors(file, write_safetensors, change)
    vae = torch.load(source / "Wan2.2_VAE.pth")
    del vae["decoder.head.2.bias"]
    vae["conv1.bias"] = vae["conv1.bias"].int()
    vae["conv2.bias"][0] = float("inf")
    torch.save(vae, source / "Wan2.2_VAE.pth")
    (source / "google/umt5-xxl/tokenizer.json").unlink()

    assert convert(source, tmp_path / "model") == 2
    error = capsys.readouterr().err
    for problem in (
        "dit: unused: extra.weight",
        "dit: shape: head.modulation is (2, 96), expected (1, 2, 96)",
        "dit: values: blocks.0.norm3.bias holds NaN",
        "dit: dtype: blocks.1.norm3.bias is F4_NEW, expected one of float32, bfloat16",
        "vae: missing: decoder.head.2.bias",
        "vae: dtype: conv1.bias is int32",
        "vae: values: conv2.bias holds NaN or infinity",
        "tokenizer.json is missing",
        "8 problems; nothing was written",
    ):
        assert problem in error
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "config.json is missing"),
        ("diffusion_pytorch_model-00001-of-00002.safetensors", "00001-of-00002.safetensors is mis"),
        ("Wan2.2_VAE.pth", "Wan2.2_VAE.pth does not exist"),
        ("models_t5_umt5-xxl-enc-bf16.pth", "enc-bf16.pth does not exist"),
    ],
)
def test_missing_files(source, tmp_path, capsys, file, message):
    (source / file).unlink()
    assert convert(source, tmp_path / "model") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_wrong_configuration(source, tmp_path, capsys):
    file = source / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "num_layers": 3}))
    assert convert(source, tmp_path / "model", "--only", "dit") == 2
    assert "missing: blocks.2.self_attn.q.weight" in capsys.readouterr().err
    file.write_text(json.dumps({"sample_size": 32}))
    assert convert(source, tmp_path / "model", "--only", "dit") == 2
    assert "lack 'num_layers'; wrong model?" in capsys.readouterr().err


def test_wrong_file_under_the_right_name(source, tmp_path, capsys):
    shutil.copy(source / "models_t5_umt5-xxl-enc-bf16.pth", source / "Wan2.2_VAE.pth")
    assert convert(source, tmp_path / "model", "--only", "vae") == 2
    assert "lack 'encoder.conv1.weight'; wrong model?" in capsys.readouterr().err


def test_full_disk(source, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    assert convert(source, tmp_path / "model") == 1
    assert "1,000,000 free on the disk" in capsys.readouterr().err
    assert names_in(tmp_path) == {"source"}


def test_dit_without_torch(original, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert convert(original, tmp_path / "dit", "--only", "dit") == 0
    assert convert(original, tmp_path / "vae", "--only", "vae") == 1
    assert "flashmotion_jax[convert]" in capsys.readouterr().err


def generator(converted):
    """The generator of `converted` plus 1, under the original names, as torch tensors."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    return {
        key: torch.from_numpy(array + 1)
        for key, array in small_checkpoint.random_tensors(
            small_checkpoint.dit_shapes(), rng
        ).items()
    }


WRAPPED = "model._fsdp_wrapped_module."


@pytest.mark.parametrize(("weights", "value"), [("ema", 2.0), ("raw", 1.0)])
def test_generator_of_a_training_checkpoint(converted, tmp_path, weights, value):
    torch = pytest.importorskip("torch")
    destination = shutil.copytree(converted, tmp_path / "model")
    tensors = generator(converted)
    layers = {
        key.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module."): tensor
        for key, tensor in tensors.items()
    }
    content = {
        "generator": {WRAPPED + key: torch.full_like(t, 1.0) for key, t in layers.items()},
        "generator_ema": {f"model._orig_mod.{key}": t * 0 + 2.0 for key, t in layers.items()},
        "critic": {WRAPPED + key: t * float("nan") for key, t in layers.items()},
        "step": 1000,
    }
    torch.save(content, tmp_path / "model.pt")
    convert_file(
        str(tmp_path / "model.pt"), destination, dtype="float32", overwrite=True, weights=weights
    )
    dit = components.load_component(destination, "dit", "float32")
    arrays = [v.get_value() for v in components.flat_parameters(dit).values()]
    assert all((array == value).all() for array in arrays)
    # Now the few-step student, it is sampled as one.
    sampling = components.read_sampling(destination)
    assert sampling == SamplingConfig().with_conventions("flashmotion")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("quanhaol/FlashMotion/FastGenerator/model.pt", "flashmotion"),
        ("quanhaol/Wan2.2-TI2V-5B-Turbo/model.pt", "turbo"),
        ("models/Wan2_2-TI2V-5B-Turbo_fp16.safetensors", "turbo"),
        ("ckpts/Turbo/generator.pt", "turbo"),
        ("turbo/runs/FastGenerator/model.pt", "flashmotion"),
        ("models/wan2.2_ti2v_5B_fp16.safetensors", "wan22"),
        ("Wan2_2-TI2V-5B_fp8_e4m3fn_scaled_KJ.safetensors", "wan22"),
        ("model.pt", "flashmotion"),
    ],
)
def test_conventions_by_the_name_of_a_file(source, expected):
    assert conventions_of(source) == expected


def test_conventions_are_stored_and_shown(converted, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    destination = shutil.copytree(converted, tmp_path / "model")
    torch.save(generator(converted), tmp_path / "x.pt")
    import_file = ["import", str(tmp_path / "x.pt"), str(destination), "--overwrite"]
    assert main([*import_file, "--conventions", "turbo"]) == 0
    assert "sampled as turbo: few_step [1000, 750, 500, 250] (raw; rounding bfloat16)" in (
        capsys.readouterr().out
    )
    stored = components.read_sampling(destination)
    assert stored == SamplingConfig().with_conventions("turbo")
    assert stored.few_step.timestep_rounding == "bfloat16" and stored.resize == "stretch"
    assert main(["inspect", str(destination)]) == 0
    text = capsys.readouterr().out
    for line in ("warp_denoising_steps: False", "timestep_rounding: 'bfloat16'", "vae: VAEConfig("):
        assert line in text


@pytest.mark.parametrize("prefix", ["", "model.", "model.diffusion_model.", "pipe.dit.", "module."])
def test_prefixes_of_other_programs(converted, tmp_path, prefix):
    torch = pytest.importorskip("torch")
    tensors = generator(converted)
    torch.save({prefix + key: tensor for key, tensor in tensors.items()}, tmp_path / "x.pt")
    destination = shutil.copytree(converted, tmp_path / "model")
    assert main(["flashmotion", str(tmp_path / "x.pt"), str(destination)]) == 2  # it has a DiT
    convert_file(str(tmp_path / "x.pt"), destination, dtype="float32", overwrite=True)
    dit = components.load_component(destination, "dit", "float32")
    np.testing.assert_array_equal(dit.head.head.bias[...], tensors["head.head.bias"].numpy())


def test_checkpoint_of_a_critic_alone(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    torch.save({"critic": {"head.head.weight": torch.zeros(2)}}, tmp_path / "x.pt")
    assert main(["flashmotion", str(tmp_path / "x.pt"), str(tmp_path / "model")]) == 2
    assert (
        "holds dit under 'critic', for training alone; expected a generator"
        in capsys.readouterr().err
    )


def test_keys_that_become_one(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    torch.save({"_orig_mod.a": torch.zeros(2), "a": torch.zeros(2)}, tmp_path / "x.pt")
    assert main(["flashmotion", str(tmp_path / "x.pt"), str(tmp_path / "model")]) == 2
    assert "not unique: _orig_mod.a" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
def test_single_components(original, tmp_path, file):
    kind = "vae" if "VAE" in file else "text_encoder"
    assert main(["flashmotion", str(original / file), str(tmp_path / "model")]) == 0
    components.load_component(tmp_path / "model", kind)


def test_malicious_file(tmp_path, capsys):
    torch = pytest.importorskip("torch")

    class Malicious:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'proof')!r}, 'w').close()",))

    torch.save({"generator": Malicious()}, tmp_path / "x.pt")
    assert main(["flashmotion", str(tmp_path / "x.pt"), str(tmp_path / "model")]) == 2
    assert "which could run code" in capsys.readouterr().err
    assert names_in(tmp_path) == {"x.pt"}


def test_unknown_file(tmp_path, write_safetensors, capsys):
    write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros(3, np.float32)})
    assert main(["flashmotion", str(tmp_path / "x.safetensors"), str(tmp_path / "model")]) == 2
    assert "no known component" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"a": 3}', '{"(": "b"}', '{"a": "{layer"}', '{"a": "{0.__class__}"}'),
        *('{"ignore": 5}', '{"ignore": "ab"}', '{"ignore": [5]}', '{"prefix": 5}'),
    ],
)
def test_map_that_is_none(tmp_path, content):
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(ValueError, match=r"is not (a table|JSON|a JSON obj).*expected JSON such"):
        read_names(tmp_path / "map.json")


def test_source_that_is_nothing(tmp_path, capsys):
    assert convert(tmp_path / "nothing", tmp_path / "model") == 2
    assert "does not exist; expected a file or folder" in capsys.readouterr().err
    small_checkpoint.write_tokenizer(tmp_path / "tokenizer")
    assert convert(tmp_path / "tokenizer", tmp_path / "model") == 2
    assert "is not a Wan2.2 checkpoint" in capsys.readouterr().err
