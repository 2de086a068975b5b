from __future__ import annotations

import json

import numpy as np
import pytest

from examples.small_checkpoint import write_small_checkpoint


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A small Wan2.2 folder in the original layout."""
    pytest.importorskip("torch")
    return write_small_checkpoint(tmp_path_factory.mktemp("original") / "wan")


@pytest.fixture(scope="session")
def diffusers_models():
    """Small models of diffusers and transformers with random weights, by the folder they go to."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    from flashmotion_jax.config import wan22

    torch.manual_seed(0)
    models = {
        "transformer": diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=24,
            in_channels=48,
            out_channels=48,
            text_dim=32,
            freq_dim=32,
            ffn_dim=64,
            num_layers=2,
        ),
        "vae": diffusers.AutoencoderKLWan(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=48,
            dim_mult=[1, 2, 4, 4],
            temperal_downsample=[False, True, True],
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_temporal=4,
            scale_factor_spatial=16,
            latents_mean=list(wan22.LATENTS_MEAN),
            latents_std=list(wan22.LATENTS_STD),
        ),
        "text_encoder": transformers.UMT5EncoderModel(
            transformers.UMT5Config(
                vocab_size=100,
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
            )
        ),
    }
    with torch.no_grad():
        for model in models.values():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return {name: model.eval() for name, model in models.items()}


@pytest.fixture(scope="session")
def diffusers_folder(diffusers_models, tmp_path_factory):
    """The same in the diffusers layout, the transformer in shards."""
    from examples.small_checkpoint import write_tokenizer

    folder = tmp_path_factory.mktemp("diffusers") / "wan"
    for name, model in diffusers_models.items():
        model.save_pretrained(folder / name, max_shard_size="200KB" if name != "vae" else "1GB")
    write_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture
def write_safetensors():
    """Writes numpy tensors (or raw ones: shape, name of a dtype, bytes) without any library."""

    def write(file, tensors):
        header, data = {}, b""
        for key, tensor in tensors.items():
            if isinstance(tensor, np.ndarray):
                names = {"float32": "F32", "int64": "I64", "bfloat16": "BF16"}
                tensor = (tensor.shape, names[str(tensor.dtype)], tensor.tobytes())
            shape, dtype, content = tensor
            end = len(data) + len(content)
            header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), end]}
            data += content
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + data)

    return write
