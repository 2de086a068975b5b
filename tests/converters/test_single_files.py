"""Single files of the ecosystem, written by the libraries that write the real ones."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.cli.convert import main
from flashmotion_jax.config import DiTConfig, TinyVAEConfig
from flashmotion_jax.converters import dit, tiny_vae, vae
from flashmotion_jax.models.tiny_vae import TinyVAE
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.text.tokenizer import Tokenizer
from helpers import parity, tiny
from helpers.converted import arrays_of, assert_same, load, plan_file

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")
save_file = pytest.importorskip("safetensors.torch").save_file

DIT = DiTConfig(
    dim=128, num_heads=2, ffn_dim=192, num_layers=2, text_dim=32, text_len=512, freq_dim=32
)
ENDS = (".weight", ".bias", "")
TYPES = gguf.GGMLQuantizationType


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=48,
        out_channels=48,
        text_dim=32,
        freq_dim=32,
        ffn_dim=192,
        num_layers=2,
    ).eval()


@pytest.fixture(scope="module")
def folder(transformer, tmp_path_factory):
    """The transformer as diffusers saves it."""
    folder = tmp_path_factory.mktemp("diffusers") / "transformer"
    transformer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    plan = plan_file(folder / "diffusion_pytorch_model.safetensors")
    assert (plan.kind, plan.config) == ("dit", DIT)
    return arrays_of(plan)


@pytest.fixture(scope="module")
def original(transformer):
    """The transformer under Wan's names, which diffusers translates back to its own."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    own = transformer.state_dict()
    names = [(f"{theirs}{end}", f"{ours}{end}") for _, ours, theirs in dit.NAMES for end in ENDS]
    pairs = [
        (theirs.replace("{layer}", layer), ours.replace("{layer}", layer))
        for theirs, ours in names
        for layer in "01"
    ]
    tensors = {ours: own[theirs] for theirs, ours in pairs if theirs in own}
    back = convert_wan_transformer_to_diffusers(dict(tensors))
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], own[key]) for key in own)
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


def is_linear(key, tensor):
    return tensor.ndim == 2 and key.endswith("weight")


def test_component_of_diffusers(transformer, folder):
    module = load(plan_file(folder / "diffusion_pytorch_model.safetensors"))
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 2, 4, 4, 48), dtype=np.float32)
    text = rng.standard_normal((1, 512, 32), dtype=np.float32)
    with torch.no_grad():
        velocity = transformer(
            torch.from_numpy(np.moveaxis(latents, -1, 1).copy()),
            torch.tensor([700.0]),
            torch.from_numpy(text),
            return_dict=False,
        )[0]
    found = module(latents, np.full((1, 2), 700, np.float32), text)
    np.testing.assert_allclose(found, np.moveaxis(velocity.numpy(), 1, -1), atol=2e-5)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "model."])
def test_original_names_in_one_file(original, expected, tmp_path, prefix):
    save_file({prefix + key: t for key, t in original.items()}, tmp_path / "x.safetensors")
    plan = plan_file(tmp_path / "x.safetensors", dit=DIT)
    assert plan.config == DIT
    assert_same(plan, expected)


def test_sizes_come_from_the_file(original, tmp_path):
    """Of the heads alone the width says something: Wan's are 128 wide."""
    save_file(original, tmp_path / "x.safetensors")
    plan = plan_file(tmp_path / "x.safetensors")
    assert plan.config == DiTConfig(
        dim=128, num_heads=1, ffn_dim=192, num_layers=2, text_dim=32, freq_dim=32
    )


@pytest.mark.parametrize("layout", ["old", "new"])
def test_scaled_fp8(original, expected, tmp_path, layout):
    tensors, metadata = {}, {}
    scale_name = "scale_weight" if layout == "old" else "weight_scale"
    for key, tensor in original.items():
        layer = key.removesuffix(".weight")
        if not is_linear(key, tensor) or ".blocks" in key or not key.startswith("blocks"):
            tensors[key] = tensor.half()
            continue
        scale = tensor.abs().max() / 448
        tensors[key] = (tensor / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors[f"{layer}.{scale_name}"] = scale.float().clone()
        tensors[f"{layer}.scale_input" if layout == "old" else f"{layer}.input_scale"] = scale
        metadata[layer] = {"format": "float8_e4m3fn"}
    if layout == "old":
        tensors["scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    tensors = {f"model.diffusion_model.{key}": tensor for key, tensor in tensors.items()}
    described = {f"model.diffusion_model.{key}": value for key, value in metadata.items()}
    text = json.dumps({"format_version": "1.0", "layers": described})
    save_file(
        tensors,
        tmp_path / "x.safetensors",
        metadata={} if layout == "old" else {"_quantization_metadata": text},
    )
    plan = plan_file(tmp_path / "x.safetensors", dit=DIT)
    assert_same(plan, expected, atol=1 / 16)


def write_gguf(file, arch, tensors, kind, fields=None):
    writer = gguf.GGUFWriter(file, arch)
    for key, tensor in tensors.items():
        array = tensor.numpy()
        small = array.ndim == 1 or "modulation" in key or array.shape[-1] % 32
        of_type = TYPES.F32 if small or array.ndim > 2 else kind
        writer.add_tensor(key, gguf.quants.quantize(array, of_type), raw_dtype=of_type)
    for name, add, value in fields or ():
        getattr(writer, add)(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(("kind", "atol"), [("F16", 1e-3), ("BF16", 1 / 128), ("Q8_0", 1 / 64)])
@pytest.mark.parametrize("patch", [(128, 48, 1, 2, 2), (128, 192), (128 * 48, 1, 2, 2)])
def test_gguf(original, expected, tmp_path, kind, atol, patch):
    """The patch kernel has five dimensions, which some programs do not store."""
    key = "patch_embedding.weight"
    tensors = {**original, key: original[key].reshape(patch)}
    file = write_gguf(tmp_path / "x.gguf", "wan", tensors, TYPES[kind])
    plan = plan_file(file, dit=DIT)
    assert plan.config == DIT
    assert_same(plan, expected, atol)
    assert any("stored flat" in line for line in plan.notices) == (len(patch) < 5)


@pytest.fixture(scope="module")
def text_encoder():
    torch.manual_seed(0)
    config = transformers.UMT5Config(
        vocab_size=96,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return transformers.UMT5EncoderModel(config).eval()


def assert_embeds_as(text_encoder, plan, atol):
    ids, mask = np.array([[5, 17, 1, 0]]), np.array([[1, 1, 1, 0]])
    with torch.no_grad():
        theirs = text_encoder(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state
    np.testing.assert_allclose(load(plan)(ids, mask)[:, :3], theirs[:, :3], atol=atol)


@pytest.mark.parametrize("prefix", ["", "text_encoders.umt5xxl.transformer."])
def test_umt5_of_comfyui(text_encoder, tmp_path, prefix):
    """Its file may hold the tokenizer, and repeats no tied weight."""
    tensors = {
        prefix + key: tensor
        for key, tensor in text_encoder.state_dict().items()
        if key != "encoder.embed_tokens.weight"
    }
    tensors[f"{prefix}spiece_model"] = torch.arange(9, dtype=torch.uint8)
    save_file(tensors, tmp_path / "x.safetensors")
    plan = plan_file(tmp_path / "x.safetensors")
    assert plan.kind == "text_encoder"
    assert (plan.config.num_heads, plan.config.head_dim, plan.config.ffn_dim) == (4, 8, 64)
    if not prefix:
        assert_embeds_as(text_encoder, plan, 1e-5)


def test_umt5_in_gguf(text_encoder, tmp_path):
    """Under the names that llama.cpp's own table gives."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    tensors = {
        names.get_name(key, try_suffixes=(".weight",)): tensor
        for key, tensor in text_encoder.state_dict().items()
        if key != "encoder.embed_tokens.weight"
    }
    file = write_gguf(tmp_path / "x.gguf", "t5encoder", tensors, TYPES.F16)
    assert_embeds_as(text_encoder, plan_file(file), 2e-2)


@pytest.fixture(scope="module")
def autoencoder(diffusers_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    diffusers_models["vae"].save_pretrained(folder)
    return folder


def test_vae_file_of_diffusers_alone(autoencoder, tmp_path):
    values = json.loads((autoencoder / "config.json").read_text())
    shutil.copy(autoencoder / "diffusion_pytorch_model.safetensors", tmp_path / "vae.safetensors")
    plan = plan_file(tmp_path / "vae.safetensors")
    assert (plan.kind, plan.config) == ("vae", vae.read_config({}, values, "diffusers"))


def test_tiny_vae_of_taehv(tmp_path):
    """Recognized by its names."""
    config = TinyVAEConfig(encoder_dim=8, decoder_dims=(16, 8, 8, 8))
    module = tiny.random_module(lambda: TinyVAE(config, rngs=nnx.Rngs(0)))
    tensors = parity.state_dict(module, tiny_vae.table(config, "original"))
    save_file(tensors, tmp_path / "taew2_2.safetensors")
    plan = plan_file(tmp_path / "taew2_2.safetensors")
    assert (plan.kind, plan.config, plan.problems()) == ("tiny_vae", config, [])
    converted = arrays_of(plan)
    for name, variable in flat_parameters(module).items():
        np.testing.assert_array_equal(converted[name], variable.get_value())


def test_vae_of_wan21_is_named(tmp_path):
    torch.manual_seed(0)
    model = diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1])
    save_file(model.state_dict(), tmp_path / "vae.safetensors")
    with pytest.raises(UserError, match=r"that of Wan2\.1, with 16 latent channels"):
        plan_file(tmp_path / "vae.safetensors")


def test_the_tokenizer_in_a_file_is_written(text_encoder, tmp_path, capsys):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a dog runs to the left"] * 9),
        model_writer=model,
        vocab_size=18,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    tensors = {
        key: tensor
        for key, tensor in text_encoder.state_dict().items()
        if key != "encoder.embed_tokens.weight"
    }
    file, destination = tmp_path / "umt5.safetensors", tmp_path / "model"
    save_file(tensors, file)
    assert main(["import", str(file), str(destination)]) == 0
    assert f"import Wan-AI/Wan2.2-TI2V-5B {destination} --only tokenizer" in capsys.readouterr().out
    content = torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)
    save_file({**tensors, "spiece_model": content}, file)
    assert main(["import", str(file), str(destination), "--overwrite"]) == 0
    assert capsys.readouterr().out == f"wrote text_encoder (bfloat16) to {destination}\n"
    ids, mask = Tokenizer(destination / "tokenizer")(["a dog"], length=16)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert list(ids[0, : mask.sum()]) == [*theirs.encode("a dog"), 1]


def test_transformer_folder_and_the_tokenizer_alone(folder, diffusers_folder, tmp_path, capsys):
    destination = tmp_path / "model"
    assert main(["import", str(folder), str(destination)]) == 0
    out = capsys.readouterr().out
    assert f"wrote dit (bfloat16) to {destination}" in out
    assert main(["import", str(diffusers_folder), str(destination), "--only", "tokenizer"]) == 0
    assert {file.name for file in destination.iterdir()} == {"dit", "tokenizer", "model.json"}
    assert main(["import", str(folder), str(destination), "--only", "vae"]) == 2
    assert "transformer holds only dit; expected vae" in capsys.readouterr().err


def test_a_generator_and_a_controlnet_in_one_torch_file(original, tmp_path, capsys):
    """A training checkpoint: both are written, and later only what is new."""
    trunk = {key: tensor for key, tensor in original.items() if not key.startswith("head.")}
    controlnet = {**trunk, "patch_embedding.weight": torch.ones(128, 96, 1, 2, 2)}
    for layer in range(2):
        controlnet[f"out_projectors.{layer}.weight"] = torch.ones(128, 128, 1, 1)
        controlnet[f"out_projectors.{layer}.bias"] = torch.ones(128)
    content = {
        "generator": {f"model._fsdp_wrapped_module.{key}": t for key, t in original.items()},
        "adapter_ema": {f"controlnet.module.{key}": t for key, t in controlnet.items()},
        "critic": {f"model.{key}": t for key, t in original.items()},
        "discriminator": {"head.weight": torch.ones(3)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    }
    file, destination = tmp_path / "model.pt", tmp_path / "model"
    torch.save(content, file)
    assert main(["import", str(file), str(destination)]) == 0
    out = capsys.readouterr().out
    assert "left out: dit under 'critic.model'" in out
    assert "left out: 1 tensor of 'discriminator'" in out
    assert "the order of the 96 input channels is not in the file" in out
    assert f"wrote dit, adapters/controlnet (bfloat16) to {destination}" in out
    shutil.rmtree(destination / "adapters")
    swap = ["--set", "input=trajectory+latents"]
    assert main(["import", str(file), str(destination), *swap]) == 0
    out = capsys.readouterr().out
    assert "left out: dit, as " in out
    assert f"wrote adapters/controlnet (bfloat16) to {destination}" in out
    found = components.read_component(destination, "adapters/controlnet")
    assert found.config.input == "trajectory+latents"
    assert main(["import", str(file), str(destination), *swap]) == 2
    assert "has dit, adapters/controlnet; add --overwrite" in capsys.readouterr().err
