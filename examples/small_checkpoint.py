"""A small Wan2.2 checkpoint with random weights, in the original file layout.

It replaces the 30 GB of `Wan-AI/Wan2.2-TI2V-5B` in the example that converts and samples, and in
the tests of the converters.

    python examples/small_checkpoint.py FOLDER
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from flashmotion_jax.config import DiTConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.config.adapters import ResNetAdapterConfig

DIT = DiTConfig(
    dim=96, num_heads=4, ffn_dim=192, num_layers=2, text_dim=64, text_len=64, freq_dim=32
)
VAE = VAEConfig(encoder_dim=16, decoder_dim=16)
TEXT = TextEncoderConfig(vocab_size=128, dim=64, num_heads=4, head_dim=16, ffn_dim=96, num_layers=2)
ADAPTER = ResNetAdapterConfig(width=32)
SENTENCES = [
    "a red ball rolls to the left, slowly",
    "the camera follows a dog through the park",
    "an astronaut looks around and smiles",
]

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def write_small_checkpoint(folder: str | Path, seed: int = 0, torch_files: bool = True) -> Path:
    """Writes a small model in the original layout of Wan2.2-TI2V-5B.

    Args:
      folder: Created if it does not exist.
      seed: Random seed of the weights.
      torch_files: Write VAE and text encoder as .pth, as published; otherwise as safetensors, which
        need no torch.

    Returns:
      The folder, 33 MB.

    Raises:
      ImportError: `torch_files` is set and torch is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    save = save_torch if torch_files else save_safe
    write_dit(folder, random_tensors(dit_shapes(), rng))
    save(random_tensors(vae_shapes(), rng), folder / "Wan2.2_VAE.pth", "float32")
    text = random_tensors(text_shapes(), rng)
    save(text, folder / "models_t5_umt5-xxl-enc-bf16.pth", "bfloat16")
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def write_small_adapter(file: str | Path, seed: int = 1) -> Path:
    """Writes a ResNet adapter for the small checkpoint, under the documented names."""
    tensors = random_tensors(adapter_shapes(), np.random.default_rng(seed))
    save_file(tensors, file)
    return Path(file)


def save_torch(tensors: dict[str, np.ndarray], file: Path, dtype: str) -> None:
    """Saves tensors as a .pth file."""
    import torch

    kind = getattr(torch, dtype)
    torch.save({name: torch.from_numpy(t).to(kind) for name, t in tensors.items()}, file)


def save_safe(tensors: dict[str, np.ndarray], file: Path, dtype: str) -> None:
    """Saves tensors as safetensors, under the name of the .pth file with another suffix."""
    cast = {name: tensor.astype(jnp.dtype(dtype)) for name, tensor in tensors.items()}
    save_file(cast, file.with_suffix(".safetensors"))


def random_tensors(shapes: Shapes, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws float32 tensors of about unit activation scale; scale parameters are near one."""
    tensors: dict[str, np.ndarray] = {}
    for name, shape in shapes:
        noise = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("gamma") or (len(shape) == 1 and name.endswith("weight")):
            tensors[name] = 1 + noise / 10
        else:
            tensors[name] = noise / math.sqrt(max(math.prod(shape[1:]), 16))
    return tensors


def dit_shapes() -> Shapes:
    """Keys and shapes of `diffusion_pytorch_model.safetensors`."""
    dim = DIT.dim
    yield from _layer("patch_embedding", (dim, DIT.in_channels, 1, *DIT.patch_size))
    for name, in_dim, out_dim in (
        ("text_embedding.0", DIT.text_dim, dim),
        ("text_embedding.2", dim, dim),
        ("time_embedding.0", DIT.freq_dim, dim),
        ("time_embedding.2", dim, dim),
        ("time_projection.1", dim, 6 * dim),
        ("head.head", dim, DIT.out_channels * DIT.patch_size[0] * DIT.patch_size[1]),
    ):
        yield from _layer(name, (out_dim, in_dim))
    yield "head.modulation", (1, 2, dim)
    for i in range(DIT.num_layers):
        block = f"blocks.{i}"
        yield f"{block}.modulation", (1, 6, dim)
        for attention in ("self_attn", "cross_attn"):
            for name in "qkvo":
                yield from _layer(f"{block}.{attention}.{name}", (dim, dim))
            for name in ("norm_q", "norm_k"):
                yield f"{block}.{attention}.{name}.weight", (dim,)
        yield from _layer(f"{block}.norm3", (dim,))
        yield from _layer(f"{block}.ffn.0", (DIT.ffn_dim, dim))
        yield from _layer(f"{block}.ffn.2", (dim, DIT.ffn_dim))


def vae_shapes() -> Shapes:
    """Keys and shapes of `Wan2.2_VAE.pth`."""
    latent, pixels = VAE.latent_channels, 3 * VAE.patch_size**2
    widths = [VAE.encoder_dim * m for m in (1, *VAE.multipliers)]
    yield from _layer("encoder.conv1", (widths[0], pixels, 3, 3, 3))
    yield from _levels("encoder.downsamples", "downsamples", widths, VAE.temporal_downsample, 2)
    yield from _middle_and_head("encoder", widths[-1], widths[-1], 2 * latent)
    yield from _layer("conv1", (2 * latent, 2 * latent, 1, 1, 1))
    yield from _layer("conv2", (latent, latent, 1, 1, 1))

    multipliers = VAE.multipliers[::-1]
    widths = [VAE.decoder_dim * m for m in (multipliers[0], *multipliers)]
    yield from _layer("decoder.conv1", (widths[0], latent, 3, 3, 3))
    yield from _levels("decoder.upsamples", "upsamples", widths, VAE.temporal_downsample[::-1], 3)
    yield from _middle_and_head("decoder", widths[0], widths[-1], pixels)


def adapter_shapes() -> Shapes:
    """Keys and shapes of a ResNet adapter."""
    width = ADAPTER.width
    yield from _layer("stem", (width, DIT.in_channels, 1, *DIT.patch_size))
    for i in range(DIT.num_layers):
        for name in ("norm1", "norm2"):
            yield f"blocks.{i}.{name}.weight", (width,)
        for name in ("conv1", "conv2"):
            yield from _layer(f"blocks.{i}.{name}", (width, width, 3, 3))
        yield from _layer(f"zero_convs.{i}", (DIT.dim, width))


def text_shapes() -> Shapes:
    """Keys and shapes of `models_t5_umt5-xxl-enc-bf16.pth`."""
    inner_dim = TEXT.num_heads * TEXT.head_dim
    yield "token_embedding.weight", (TEXT.vocab_size, TEXT.dim)
    for i in range(TEXT.num_layers):
        block = f"blocks.{i}"
        for name in ("norm1", "norm2"):
            yield f"{block}.{name}.weight", (TEXT.dim,)
        for name in "qkv":
            yield f"{block}.attn.{name}.weight", (inner_dim, TEXT.dim)
        yield f"{block}.attn.o.weight", (TEXT.dim, inner_dim)
        yield f"{block}.ffn.gate.0.weight", (TEXT.ffn_dim, TEXT.dim)
        yield f"{block}.ffn.fc1.weight", (TEXT.ffn_dim, TEXT.dim)
        yield f"{block}.ffn.fc2.weight", (TEXT.dim, TEXT.ffn_dim)
        yield f"{block}.pos_embedding.embedding.weight", (TEXT.num_buckets, TEXT.num_heads)
    yield "norm.weight", (TEXT.dim,)


def _layer(name: str, shape: tuple[int, ...]) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _residual(name: str, in_channels: int, out_channels: int) -> Shapes:
    yield f"{name}.residual.0.gamma", (in_channels, 1, 1, 1)
    yield from _layer(f"{name}.residual.2", (out_channels, in_channels, 3, 3, 3))
    yield f"{name}.residual.3.gamma", (out_channels, 1, 1, 1)
    yield from _layer(f"{name}.residual.6", (out_channels, out_channels, 3, 3, 3))
    if in_channels != out_channels:
        yield from _layer(f"{name}.shortcut", (out_channels, in_channels, 1, 1, 1))


def _levels(
    name: str, inner: str, widths: list[int], changes_time: tuple[bool, ...], num_blocks: int
) -> Shapes:
    for level, (in_channels, channels) in enumerate(pairwise(widths)):
        for block in range(num_blocks):
            block_in = channels if block else in_channels
            yield from _residual(f"{name}.{level}.{inner}.{block}", block_in, channels)
        if level == len(changes_time):  # the last level has no resampling
            return
        resample = f"{name}.{level}.{inner}.{num_blocks}"
        yield from _layer(f"{resample}.resample.1", (channels, channels, 3, 3))
        if changes_time[level]:
            doubles = 2 if inner == "upsamples" else 1
            yield from _layer(f"{resample}.time_conv", (doubles * channels, channels, 3, 1, 1))


def _middle_and_head(name: str, channels: int, head_in: int, head_out: int) -> Shapes:
    yield from _residual(f"{name}.middle.0", channels, channels)
    yield f"{name}.middle.1.norm.gamma", (channels, 1, 1)
    yield from _layer(f"{name}.middle.1.to_qkv", (3 * channels, channels, 1, 1))
    yield from _layer(f"{name}.middle.1.proj", (channels, channels, 1, 1))
    yield from _residual(f"{name}.middle.2", channels, channels)
    yield f"{name}.head.0.gamma", (head_in, 1, 1, 1)
    yield from _layer(f"{name}.head.2", (head_out, head_in, 3, 3, 3))


def write_dit(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes `config.json`, two shards and their index."""
    config = {
        "_class_name": "WanModel",
        "model_type": "ti2v",
        "dim": DIT.dim,
        "ffn_dim": DIT.ffn_dim,
        "freq_dim": DIT.freq_dim,
        "in_dim": DIT.in_channels,
        "out_dim": DIT.out_channels,
        "num_heads": DIT.num_heads,
        "num_layers": DIT.num_layers,
        "text_len": DIT.text_len,
        "eps": DIT.eps,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path) -> None:
    """Writes a Unigram tokenizer of a few words in the files of `google/umt5-xxl`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=TEXT.vocab_size,
        special_tokens=list(special.values()),
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "T5Tokenizer", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    print(f"wrote {write_small_checkpoint(sys.argv[1])}")
