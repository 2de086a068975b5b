"""Zeros of partial downloads are found, and zeros that were written are not."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from examples.small_checkpoint import write_small_checkpoint
from flashmotion_jax.cli.convert import main
from flashmotion_jax.converters.zeros import find_unwritten

RNG = np.random.default_rng(0)


def dense(*shape, dtype=np.float32):
    return RNG.standard_normal(shape, np.float32).astype(dtype)


def zeroed(array, start, stop):
    array = array.copy()
    array.reshape(-1)[start:stop] = 0
    return array


def edited(array, index):
    array = array.copy()
    array[index] = 0
    return array


def identity_convolution():
    """Wan's fresh temporal convolutions: the identity in the last of three slices."""
    kernel = np.zeros((2048, 1024, 3, 1, 1), np.float32)
    kernel[np.arange(2048), np.arange(2048) % 1024, 2] = 1
    return kernel


HONEST = {
    "dense": ("blocks.ffn.up.kernel", dense(64, 96)),
    "zero bias": ("blocks.ffn.up.bias", np.zeros(4096)),
    "half a bias": ("blocks.attn.kv.bias", zeroed(dense(8192), 0, 4096)),
    "fresh output projection": ("blocks.projection.kernel", np.zeros((512, 512))),
    "fresh projections": ("projections.kernel", np.zeros((1024, 64), ml_dtypes.bfloat16)),
    "another name of them": ("out_projectors.3.weight", np.zeros((64, 64))),
    "fresh residual branch": ("blocks.conv2.kernel", np.zeros((64, 64, 3, 3, 3))),
    "fresh head": ("head.head.kernel", np.zeros((192, 96))),
    "fresh attention of the VAE": ("decoder.middle.1.proj.kernel", np.zeros((64, 64, 1, 1))),
    "fresh LoRA": ("blocks.lora_up.kernel", np.zeros((512, 16))),
    "padding of a vocabulary": (
        "token_embedding.embedding",
        zeroed(dense(300, 64), 64 * 256, None),
    ),
    "unused tokens": ("token_embedding.embedding", edited(dense(900, 64), slice(100, 700))),
    "dead channels": ("blocks.conv1.kernel", edited(dense(64, 512, 3, 3), [3, 4, 5, 40])),
    "new input channels": ("patch_embedding.kernel", edited(dense(96, 36, 1, 2, 2), np.s_[:, 16:])),
    "a new first channel": ("stem.kernel", edited(dense(96, 36, 1, 2, 2), np.s_[:, :20])),
    "identity": ("decoder.upsamples.0.time_conv.kernel", identity_convolution()),
    "one zero": ("blocks.ffn.up.kernel", zeroed(dense(64, 96), -1, None)),
    "small values in float8": (
        "blocks.ffn.up.kernel",
        (dense(512, 96) / 800).astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
    ),
    "modulation": ("blocks.modulation", np.zeros((1, 6, 64))),
    "single value": ("scale.kernel", np.zeros((1, 1))),
    "empty": ("blocks.ffn.up.kernel", np.zeros((0, 4))),
}


@pytest.mark.parametrize("case", HONEST)
def test_honest_zeros_pass(case):
    assert find_unwritten(*HONEST[case]) is None


UNWRITTEN = {
    "all of it": np.zeros((64, 96), np.float32),
    "tail": zeroed(dense(64, 96), 5000, None),
    "tail of a part of the last row": zeroed(dense(64, 96), 64 * 96 - 70, None),
    "tail from the first row on": zeroed(dense(64, 96), 50, None),
    "tail of the 16-bit kind": zeroed(dense(64, 96, dtype=ml_dtypes.bfloat16), 1234, None),
    "tail of a convolution": zeroed(dense(16, 8, 3, 3, 3), 2000, None),
    "narrow rows": zeroed(dense(512, 4), 1802, None),
    "head": zeroed(dense(64, 96), 0, 1000),
    "head up to the last row": zeroed(dense(64, 96), 0, 64 * 96 - 40),
    "hole": zeroed(dense(512, 96), 20_000, 30_000),
    "hole that begins with a row": zeroed(dense(512, 96), 96 * 200, 96 * 290 + 33),
    "second of two holes": zeroed(zeroed(dense(900, 96), 960, 960 + 9600), 40_000, 60_000),
    "hole in a wide row": zeroed(dense(4, 60_000), 70_000, 90_000),
}


@pytest.mark.parametrize("case", UNWRITTEN)
def test_zeros_of_a_download_are_found(case):
    assert "zeros" in find_unwritten("blocks.ffn.up.kernel", UNWRITTEN[case])


@pytest.mark.parametrize("fraction", [0.3, 0.05, 0.01])
def test_a_shard_with_a_tail_of_zeros_is_an_error(tmp_path, capsys, fraction):
    folder = write_small_checkpoint(tmp_path / "wan", torch_files=False)
    shard = folder / "diffusion_pytorch_model-00002-of-00002.safetensors"
    command = ["wan22", str(folder), str(tmp_path / "model"), "--only", "dit"]
    assert main(command) == 0
    content = shard.read_bytes()
    missing = int(fraction * len(content))
    shard.write_bytes(content[:-missing] + bytes(missing))
    assert main([*command, "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert "as after a partial download; download it again" in error
