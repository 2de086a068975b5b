"""Conversion and sampling at full size, with random weights in Wan2.2's file layout.

Needs torch, 70 GB of disk and 16 GB of memory; prints the numbers of docs/results.md.

    PYTHONPATH=. python tools/full_size_rehearsal.py FOLDER
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from examples import small_checkpoint
from flashmotion_jax.config import DiTConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.config.adapters import ResNetAdapterConfig
from flashmotion_jax.converters import dit

#: The DiT's float32 weights are in three files, as published.
NUM_SHARDS = 3


def main():
    folder = Path(sys.argv[1])
    source, checkpoint = folder / "Wan2.2-TI2V-5B", folder / "checkpoint"
    small_checkpoint.DIT = DiTConfig()
    small_checkpoint.VAE = VAEConfig()
    small_checkpoint.TEXT = TextEncoderConfig()
    small_checkpoint.ADAPTER = ResNetAdapterConfig()
    write_source(source)
    small_checkpoint.write_small_adapter(folder / "adapter.safetensors")
    python = [sys.executable, "-m"]
    run("convert", [*python, "converters", "import", source, checkpoint])
    adapter = folder / "adapter.safetensors"
    run("add adapter", [*python, "converters", "import", adapter, checkpoint])
    sample = [*python, "flashmotion_jax.cli", "sample", "--model", checkpoint]
    sample += ["--dtype", "bfloat16", "--sampler", "few_step", "--height", "128", "--width", "128"]
    sample += ["--num-frames", "9", "--prompt", "a dog", "--out", folder / "video.mp4"]
    run("sample, ResNet", [*sample, "--trajectory", trajectory(folder)])


def write_source(folder):
    """Writes the original layout as a stream, without a whole model in memory."""
    folder.mkdir(parents=True)
    shapes = list(small_checkpoint.dit_shapes())
    names = {}
    for number in range(NUM_SHARDS):
        file = f"diffusion_pytorch_model-{number + 1:05}-of-{NUM_SHARDS:05}.safetensors"
        part = shapes[number::NUM_SHARDS]
        stream_safetensors(folder / file, part)
        names |= {name: file for name, _ in part}
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    config = dit.write_config(DiTConfig(), "original")
    (folder / "config.json").write_text(json.dumps(config))
    save_torch(folder / "Wan2.2_VAE.pth", small_checkpoint.vae_shapes(), torch.float32)
    text = folder / "models_t5_umt5-xxl-enc-bf16.pth"
    save_torch(text, small_checkpoint.text_shapes(), torch.bfloat16)
    # The ids of the small tokenizer are also ids of the large embedding.
    small_checkpoint.TEXT = TextEncoderConfig(vocab_size=128)
    small_checkpoint.write_tokenizer(folder / "google" / "umt5-xxl")


def stream_safetensors(file, shapes):
    header, end = {}, 0
    for name, shape in shapes:
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes:
            small_checkpoint.random_tensors([(name, shape)], rng)[name].tofile(stream)


def save_torch(file, shapes, dtype):
    rng = np.random.default_rng(1)
    tensors = {}
    for name, shape in shapes:
        tensor = small_checkpoint.random_tensors([(name, shape)], rng)[name]
        tensors[name] = torch.from_numpy(tensor).to(dtype)
    torch.save(tensors, file)


def trajectory(folder):
    box = {"frame": 0, "box": [0.1, 0.1, 0.5, 0.5]}
    moved = {"frame": 8, "box": [0.5, 0.4, 0.9, 0.8]}
    file = folder / "trajectory.json"
    objects = [{"id": 1, "name": "dog", "keyframes": [box, moved]}]
    canvas = {"width": 128, "height": 128}
    content = {"version": 1, "canvas": canvas, "num_frames": 9, "fps": 24, "objects": objects}
    file.write_text(json.dumps(content))
    return file


def run(what, command):
    """Runs a command and prints its time and peak memory."""
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command])
    status = Path(f"/proc/{process.pid}/status")
    peak = 0
    while process.poll() is None:  # wait4 would include the peak of this process
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        peak = max(peak, int(found[1]) if found else 0)
        time.sleep(0.1)
    seconds = time.perf_counter() - start
    print(f"| {what} | {seconds:.0f} s | {peak * 1024 / 1e9:.1f} GB |", flush=True)
    if process.returncode:
        sys.exit(1)


if __name__ == "__main__":
    main()
