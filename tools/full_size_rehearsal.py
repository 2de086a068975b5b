"""Conversion and sampling at full size, with random weights in the forms of published files.

The files are written as streams, converted with `flashmotion convert import`, and deleted, one
after another, as `flashmotion download` does: UMT5-XXL in bfloat16 and the VAE in float32 as .pth,
the DiT in float32 as three safetensors files, the ControlNet in bfloat16 as one .pt with wrappers
around its names, and the ResNet adapter. Then 9 frames of 128 x 128 are sampled.

Needs torch, 45 GB of disk and 14 GB of memory; prints the numbers of docs/results.md.

    PYTHONPATH=. nice python tools/full_size_rehearsal.py FOLDER [--sample-controlnet] [--small]
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

from examples import small_checkpoint
from flashmotion_jax.config import DiTConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.config.adapters import ResNetAdapterConfig
from flashmotion_jax.converters import dit

#: The DiT's float32 weights are in three files, as published.
NUM_SHARDS = 3
#: What surrounds the names of the ControlNet's parameters: a training state, its part, and FSDP.
NESTING = ("state_dict",)
PREFIX = "controlnet.model._fsdp_wrapped_module."
#: Values written at a time, and those that are drawn once, of which each block is a slice.
BLOCK = 2**24
POOL = 2**26
ALIGNMENT = 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample-controlnet", action="store_true", help="needs 24 GB of memory")
    parser.add_argument("--small", action="store_true", help="small widths, to try this script")
    args = parser.parse_args()
    if not args.small:
        small_checkpoint.DIT = DiTConfig()
        small_checkpoint.VAE = VAEConfig()
        small_checkpoint.TEXT = TextEncoderConfig()
        small_checkpoint.ADAPTER = ResNetAdapterConfig()
    source, checkpoint = args.folder / "source", args.folder / "checkpoint"
    python = [sys.executable, "-m", "flashmotion_jax.cli"]
    print("| step | written as | time | peak memory | of it not of files |\n|---|---|---|---|---|")
    for name, write, only in (
        ("text encoder", write_text, "text"),
        ("VAE", write_vae, "vae"),
        ("DiT", write_dit, "dit"),
        ("ControlNet", write_controlnet, None),
        ("ResNet adapter", write_resnet, None),
    ):
        start = time.perf_counter()
        file = write(source)
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
        print(f"writing {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        options = ["--only", only] if only else []
        command = [*python, "convert", "import", file, checkpoint, *options]
        run(f"convert {name}", f"{size / 1e9:.1f} GB", command)
        shutil.rmtree(source)
    adapters = ["resnet", *(["controlnet"] if args.sample_controlnet else [])]
    for adapter in adapters:
        out = args.folder / f"{adapter}.mp4"
        sample = [*python, "sample", "--model", checkpoint, "--adapter", adapter, "--out", out]
        sample += ["--dtype", "bfloat16", "--sampler", "few_step", "--prompt", "a dog"]
        sample += ["--height", "128", "--width", "128", "--num-frames", "9"]
        run(f"sample, {adapter}", "", [*sample, "--trajectory", trajectory(args.folder)])
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    print(f"\nthe checkpoint has {size / 1e9:.1f} GB")


def write_text(folder):
    stream_torch(
        folder / "models_t5_umt5-xxl-enc-bf16.pth", small_checkpoint.text_shapes(), torch.bfloat16
    )
    # The ids of the small tokenizer are also ids of the large embedding.
    large, small_checkpoint.TEXT = small_checkpoint.TEXT, TextEncoderConfig(vocab_size=128)
    small_checkpoint.write_tokenizer(folder / "google" / "umt5-xxl")
    small_checkpoint.TEXT = large
    return folder


def write_vae(folder):
    stream_torch(folder / "Wan2.2_VAE.pth", small_checkpoint.vae_shapes(), torch.float32)
    return folder


def write_dit(folder):
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
    config = dit.write_config(small_checkpoint.DIT, "original")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_controlnet(folder):
    """The DiT's names, twice the input channels, no head, and the projections of MagicMotion."""
    config = small_checkpoint.DIT
    shapes = []
    for name, shape in small_checkpoint.dit_shapes():
        if name == "patch_embedding.weight":
            shape = (shape[0], 2 * shape[1], *shape[2:])
        if not name.startswith("head."):
            shapes.append((PREFIX + name, shape))
    for layer in range(config.num_layers):
        name = f"{PREFIX}out_projectors.{layer}"
        shapes += [(f"{name}.weight", (config.dim, config.dim)), (f"{name}.bias", (config.dim,))]
    stream_torch(folder / "model.pt", shapes, torch.bfloat16, NESTING)
    return folder / "model.pt"


def write_resnet(folder):
    folder.mkdir(parents=True)
    return small_checkpoint.write_small_adapter(folder / "adapter.safetensors")


def blocks(name, shape, rng):
    """Yields float32 values of about unit activation scale; scale parameters are near one."""
    is_scale = name.endswith("gamma") or (len(shape) == 1 and name.endswith("weight"))
    scale = 0.1 if is_scale else 1 / math.sqrt(max(math.prod(shape[1:]), 16))
    left = math.prod(shape)
    while left:
        size = min(left, BLOCK)
        start = rng.integers(POOL - size)
        noise = np.float32(scale) * pool()[start : start + size]
        left -= size
        yield noise + np.float32(1) if is_scale else noise


@functools.cache
def pool():
    return np.random.default_rng(2).standard_normal(POOL, dtype=np.float32)


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
            for values in blocks(name, shape, rng):
                values.tofile(stream)


def stream_torch(file, shapes, dtype, nesting=()):
    """Writes what `torch.save` would, without the tensors in memory: its archive, then the data."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shapes = list(shapes)
    # Memory that nobody touches is none, and skipped data are a hole in the file.
    content = {name: torch.empty(shape, dtype=dtype) for name, shape in shapes}
    for key in reversed(nesting):
        content = {key: content}
    skeleton = file.with_suffix(".skeleton")
    with torch.serialization.skip_data():
        torch.save(content, skeleton)
    rng = np.random.default_rng(1)
    tensors = iter(shapes)
    with zipfile.ZipFile(skeleton) as source, zipfile.ZipFile(file, "w") as target:
        for entry in source.infolist():
            name = f"{file.stem}/{entry.filename.partition('/')[2]}"
            if "/data/" not in name:
                target.writestr(aligned(name, target), source.read(entry))
                continue
            with target.open(aligned(name, target), "w") as stream:
                for values in blocks(*next(tensors), rng):
                    stream.write(torch.from_numpy(values).to(dtype).view(torch.uint8).numpy())
    skeleton.unlink()


def aligned(name, archive):
    """The header of an entry, padded so that its data begin at a multiple of `ALIGNMENT`."""
    entry = zipfile.ZipInfo(name)
    start = archive.fp.tell() + 30 + len(name.encode())
    padding = -(start + 4) % ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    return entry


def trajectory(folder):
    box = {"frame": 0, "box": [0.1, 0.1, 0.5, 0.5]}
    moved = {"frame": 8, "box": [0.5, 0.4, 0.9, 0.8]}
    file = folder / "trajectory.json"
    objects = [{"id": 1, "name": "dog", "keyframes": [box, moved]}]
    canvas = {"width": 128, "height": 128}
    content = {"version": 1, "canvas": canvas, "num_frames": 9, "fps": 24, "objects": objects}
    file.write_text(json.dumps(content))
    return file


def run(what, size, command):
    """Runs a command and prints its time and peak memory, with and without pages of files."""
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=sys.stderr)
    status = Path(f"/proc/{process.pid}/status")
    peak = {"VmHWM": 0, "RssAnon": 0}
    done = threading.Event()
    while process.poll() is None:  # wait4 would include the peak of this process
        text = status.read_text()
        for name in peak:
            found = re.search(rf"{name}:\s+(\d+) kB", text)
            peak[name] = max(peak[name], int(found[1]) if found else 0)
        done.wait(0.1)
    seconds = time.perf_counter() - start
    total, anonymous = (f"{value * 1024 / 1e9:.1f} GB" for value in peak.values())
    print(f"| {what} | {size} | {seconds:.0f} s | {total} | {anonymous} |", flush=True)
    if process.returncode:
        sys.exit(1)


if __name__ == "__main__":
    main()
