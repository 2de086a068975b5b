from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DiTConfig
from flashmotion_jax.converters import dit
from flashmotion_jax.converters.mapping import make_entries

#: 4.0 GB in float32; its largest stacked parameter, 12 x 2048 x 8192, has 805 MB.
CONFIG = DiTConfig(dim=2048, num_heads=16, ffn_dim=8192, num_layers=12, text_dim=1024)
GIGABYTE = 10**9

MEASURE = """
import re, sys
from pathlib import Path
from flashmotion_jax.cli.convert import main
import flashmotion_jax.converters.importing
def peak():  # not getrusage: its figure begins with that of the parent
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
status = main(sys.argv[1:])
print(status, peak() - before)
"""


def write_source(folder, suffix):
    """A DiT of `CONFIG`: safetensors with its config.json, or another single file."""
    module = components.abstract_module("dit", CONFIG, "float32")
    entries = make_entries(components.flat_parameters(module), dit.table(CONFIG, "original"))
    shapes = {key: entry.source_shape for entry in entries for key in entry.keys}
    if suffix == ".pt":
        import torch

        torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, folder / "x.pt")
        return folder / "x.pt"
    if suffix in EIGHT_BITS:
        return EIGHT_BITS[suffix](folder / f"x{suffix}", shapes)
    values = dit.write_config(CONFIG, "original")
    (folder / "config.json").write_text(json.dumps(values))
    header, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "diffusion_pytorch_model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        noise = np.random.default_rng(0).standard_normal(2**22, dtype=np.float32).tobytes()
        for start in range(0, end, len(noise)):
            stream.write(noise[: end - start])
    return folder


def write_fp8(file, shapes):
    """Writes linear layers in float8 with a scale each, as ComfyUI does."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {}
    for key, shape in shapes.items():
        if len(shape) != 2:
            tensors[key] = torch.ones(shape, dtype=torch.bfloat16)
            continue
        tensors[key] = torch.ones(shape).to(torch.float8_e4m3fn)
        tensors[f"{key.removesuffix('.weight')}.scale_weight"] = torch.tensor(0.01)
    save_file(tensors, file)
    return file


def write_gguf(file, shapes):
    """Writes linear layers in blocks of Q8_0, with scale 1 and values 1."""
    gguf = pytest.importorskip("gguf")
    types = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(file, "wan")
    for key, shape in shapes.items():
        if len(shape) != 2:
            writer.add_tensor(key, np.ones(shape, np.float32))
            continue
        blocks = np.ones((shape[0], shape[1] // 32, 34), np.uint8)
        blocks[..., :2] = 0, 60
        writer.add_tensor(key, blocks.reshape(shape[0], -1), raw_dtype=types.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


EIGHT_BITS = {".fp8.safetensors": write_fp8, ".gguf": write_gguf}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", *EIGHT_BITS])
def test_four_gigabytes_convert_in_little_memory(tmp_path, suffix, dtype, capsys):
    source = write_source(tmp_path, suffix)
    model = tmp_path / "model"
    if suffix != ".safetensors":
        command = ["flashmotion", source, model]
    else:
        command = ["wan22", source, model, "--only", "dit"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "XLA_FLAGS": ""}
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, command), "--dtype", dtype],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    status, peak = map(int, run.stdout.splitlines()[-1].split())
    assert status == 0, run.stderr
    largest = 12 * 2048 * 8192 * (4 if dtype == "float32" else 2)
    with capsys.disabled():
        print(
            f"\n{suffix} to {dtype}: {peak / GIGABYTE:.2f} GB above the start, of which "
            f"{largest / GIGABYTE:.2f} GB are the parameter that is written"
        )
    assert peak - largest < 2 * GIGABYTE
