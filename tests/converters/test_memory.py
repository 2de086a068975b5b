from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DiTConfig, SamplingConfig, to_dict
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
    """A DiT of `CONFIG` as safetensors with its config.json, or as a torch file."""
    module = components.abstract_module("dit", CONFIG, "float32")
    entries = make_entries(components.flat_parameters(module), dit.table(CONFIG, "original"))
    shapes = {key: entry.source_shape for entry in entries for key in entry.keys}
    if suffix == ".pt":
        import torch

        torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, folder / "x.pt")
        return folder / "x.pt"
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


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_four_gigabytes_convert_in_little_memory(tmp_path, suffix, dtype, capsys):
    source = write_source(tmp_path, suffix)
    model = tmp_path / "model"
    if suffix == ".pt":  # the sizes come from the checkpoint it is added to
        pytest.importorskip("torch")
        components.write_sampling(model, SamplingConfig())
        write_config(model)
        command = ["flashmotion", source, model, "--overwrite"]
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


def write_config(model):
    component = components.Component(
        kind="dit", dtype="float32", config=CONFIG, dit_config=None, num_bytes=0, key=""
    )
    (model / "dit").mkdir()
    (model / "dit" / "config.json").write_text(json.dumps(to_dict(component)))
