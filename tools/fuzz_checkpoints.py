"""Fuzzes the readers of checkpoints with atheris: our own models, and what converters read.

    pip install atheris
    python tools/fuzz_checkpoints.py safetensors --seconds 240 [--out FOLDER]

What is found is an exception that is no `UserError`, more than 5 s of CPU time, or memory that
grows by more than 0.5 GB. The input of each kind of finding is kept in FOLDER; the last line is
JSON.
"""

from __future__ import annotations

import functools
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import atheris
import numpy as np

with atheris.instrument_imports(include=["flashmotion_jax"]):
    from fuzzing import Fuzzer, fuzz, parse

    from examples.small_checkpoint import write_small_adapter, write_small_checkpoint
    from flashmotion_jax.checkpoints import components
    from flashmotion_jax.converters.exporting import export_folder
    from flashmotion_jax.converters.folders import open_folder
    from flashmotion_jax.converters.importing import convert_wan22, find_components
    from flashmotion_jax.converters.inspection import inspect
    from flashmotion_jax.converters.names import Names, read_names
    from flashmotion_jax.converters.planning import Known, Plan, plan_contents, plan_folder
    from flashmotion_jax.converters.reader import read_weights
    from flashmotion_jax.inference.pipeline import shipped_model
    from flashmotion_jax.runtime.checksums import find_damage
    from flashmotion_jax.text.tokenizer import Tokenizer

#: What a value of a JSON document is replaced by.
ODD: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: -1,
    lambda: 0,
    lambda: 1,
    lambda: 3,
    lambda: 10**6,
    lambda: 10**9,
    lambda: 2**63,
    lambda: 10**30,
    lambda: 0.5,
    lambda: 1e308,
    lambda: "",
    lambda: "x",
    lambda: "../../../etc/passwd",
    lambda: "\\ud800",
    lambda: "float32",
    lambda: [],
    lambda: {},
    lambda: [1, 2],
    lambda: [0, 2**40],
    lambda: [[1]],
    lambda: {"a": {}},
    lambda: [1] * 1000,
)

#: What is fuzzed, by its target: a folder made once, and the files in it that are replaced.
JSON_FILES: dict[str, tuple[str, ...]] = {
    "model": (
        "model.json",
        "dit/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "adapters/resnet/config.json",
    ),
    "checksums": ("dit/checksums.json",),
    "tokenizer": ("tokenizer/tokenizer.json",),
    "original": ("config.json", "diffusion_pytorch_model.safetensors.index.json"),
    "diffusers": ("transformer/config.json", "vae/config.json", "text_encoder/config.json"),
    "names": ("names.json",),
}
BINARY = ("safetensors", "torch", "pickle", "gguf")
TARGETS = (*JSON_FILES, *BINARY)


def small_wan22(folder: Path) -> Path:
    """A small checkpoint in the original layout."""
    return write_small_checkpoint(folder / "wan", torch_files=False)


def base_folder(target: str, folder: Path) -> Path:
    """The valid folder of a target."""
    if target in ("model", "checksums", "tokenizer"):
        return Path(shutil.copytree(shipped_model(), folder / "model"))
    if target == "names":
        (folder / "names").mkdir()
        names = {"blocks\\.(conv1|conv2)\\.kernel": "n.{layer}.\\1.weight", "ignore": ["freqs.*"]}
        (folder / "names" / "names.json").write_text(json.dumps(names))
        return folder / "names"
    original = small_wan22(folder)
    if target == "original":
        return original
    kinds = ["dit", "vae", "text_encoder"]
    convert_wan22(str(original), folder / "m", kinds=kinds, dtype="float32", overwrite=False)
    export_folder(folder / "m", folder / "diffusers", "diffusers", kinds=kinds, dtype=None)
    return folder / "diffusers"


def paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values of a document."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, child in value.items():
            yield from paths(child, (*path, key))


def edited(provider: atheris.FuzzedDataProvider, value: Any) -> Any:
    """A document with a few values that are odd, missing or new."""
    for _ in range(provider.ConsumeIntInRange(1, 3)):
        places = list(paths(value))
        path = places[provider.ConsumeIntInRange(0, len(places) - 1)]
        odd = ODD[provider.ConsumeIntInRange(0, len(ODD) - 1)]()
        if not path:
            value = odd if provider.ConsumeIntInRange(0, 9) == 0 else value
            continue
        parent = functools.reduce(lambda one, key: one[key], path[:-1], value)
        kind = provider.ConsumeIntInRange(0, 5)
        if kind == 0:
            del parent[path[-1]]
        elif kind == 1 and isinstance(parent, dict):
            parent[str(odd)[:20]] = parent.pop(path[-1])
        else:
            parent[path[-1]] = odd
    return value


def document(data: bytes, valid: bytes) -> bytes:
    """The bytes of a JSON file: edits of the valid one, or the data as they are."""
    if data[:1] and data[0] < 192:
        value = json.loads(valid)
        value.pop("checksum", None)
        return json.dumps(edited(atheris.FuzzedDataProvider(data[1:]), value)).encode()
    return data[1:]


def read_json_target(
    target: str, base: Path, valid: dict[str, bytes], data: bytes, _: Path
) -> None:
    """Replaces one file of a folder, and reads the folder."""
    names = JSON_FILES[target]
    name = names[data[0] % len(names)] if data else names[0]
    (base / name).write_bytes(document(data[1:], valid[name]))
    try:
        READERS[target](base, name)
    finally:
        (base / name).write_bytes(valid[name])


def read_model(base: Path, name: str) -> None:
    components.open_checkpoint(base)
    kind = name.removesuffix("/config.json")
    if kind in components.kinds():
        component = components.read_component(base, kind)
        module = components.abstract_module(
            kind, component.config, component.dtype, component.dit_config
        )
        components.flat_parameters(module)
    inspect(str(base), component=None, names=None)


def read_part(base: Path, name: str) -> None:
    kind = name.partition("/")[0] if name.startswith(("vae", "text")) else "dit"
    plan_folder(open_folder(base), kind, "bfloat16").problems()


def plan_file(file: Path, names: Names) -> list[Plan]:
    contents = find_components(read_weights(file), "ema", None, names)
    return plan_contents(contents, Known(dtype="float32", names=names))


READERS: dict[str, Callable[[Path, str], object]] = {
    "model": read_model,
    "checksums": lambda base, name: find_damage(base / "dit"),
    "tokenizer": lambda base, name: Tokenizer(base / "tokenizer")(["a red ball"], 16),
    "original": read_part,
    "diffusers": read_part,
    "names": lambda base, name: plan_file(
        base.parent / "adapter.safetensors", read_names(base / name)
    ),
}


def read_file(path: Path) -> None:
    """Lists a file and reads every tensor that would be converted."""
    inspect(str(path), component=None, names=None)
    for plan in plan_file(path, Names()):
        list(plan.bad_values())


def read_safetensors(data: bytes, folder: Path, valid: list[bytes]) -> None:
    """Header and data as they are, or edits of a valid header."""
    content = data[1:]
    if data[:1] and data[0] < 160:
        one = valid[data[0] % len(valid)]
        size = int.from_bytes(one[:8], "little")
        header = edited(atheris.FuzzedDataProvider(content), json.loads(one[8 : 8 + size]))
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + one[8 + size :]
    elif data[:1] and data[0] < 224:
        content = len(content).to_bytes(8, "little") + content + bytes(64)
    (folder / "x.safetensors").write_bytes(content)
    read_file(folder / "x.safetensors")


def read_torch(data: bytes, folder: Path, adapter: bytes, as_zip: bool) -> None:
    """A pickle within a valid archive, or the data as they are."""
    if as_zip and data[:1] and data[0] < 192:
        with (
            zipfile.ZipFile(io.BytesIO(adapter)) as valid,
            zipfile.ZipFile(folder / "x.pt", "w") as archive,
        ):
            for name in valid.namelist():
                content = data[1:] if name.endswith("data.pkl") else valid.read(name)
                archive.writestr(name, content)
    else:
        (folder / "x.pt").write_bytes(data[1:])
    read_file(folder / "x.pt")


def read_gguf(data: bytes, folder: Path) -> None:
    (folder / "x.gguf").write_bytes(data)
    read_file(folder / "x.gguf")


def small_torch(adapter: Path, legacy: bool) -> bytes:
    """An adapter as torch saves it, its larger tensors as views of one value."""
    import torch
    from safetensors.torch import load_file

    tensors = {
        name: tensor if tensor.numel() < 100 else torch.ones(1).expand(tensor.shape)
        for name, tensor in load_file(adapter).items()
    }
    content = {"adapter": tensors, "step": 7, "opt": [{"lr": 1.5}, torch.ones(3, 2).T.bfloat16()]}
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def small_gguf(folder: Path) -> bytes:
    """Tensors of three types, and fields."""
    import gguf

    writer = gguf.GGUFWriter(folder / "seed.gguf", "wan")
    writer.add_string("name", "x")
    writer.add_array("comfy.gguf.orig_shape.stem.weight", [8, 4, 8])
    values = np.arange(256, dtype=np.float32).reshape(8, 32)
    writer.add_tensor("stem.weight", values)
    quantized = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blocks.0.w", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("stem.bias", values[0].astype(np.float16))
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    return (folder / "seed.gguf").read_bytes()


def make(target: str, folder: Path) -> tuple[Callable[[bytes, Path], object], list[bytes]]:
    """The reader of a target and its seeds."""
    if target in JSON_FILES:
        write_small_adapter(folder / "adapter.safetensors")
        base = base_folder(target, folder)
        valid = {name: (base / name).read_bytes() for name in JSON_FILES[target]}
        raw = [bytes([k, 255]) + valid[name] for k, name in enumerate(valid)]
        edits = [bytes([k, 0, 7 * k, 3, 5]) for k in range(len(valid))]
        return functools.partial(read_json_target, target, base, valid), [*raw, *edits]
    adapter = write_small_adapter(folder / "adapter.safetensors").read_bytes()
    if target == "safetensors":
        small = {"stem.bias": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}}
        header = json.dumps(small).encode()
        files = sorted(small_wan22(folder).glob("*.safetensors"))
        # Without the VAE, whose 30 MB would have to be written each time.
        contents = [adapter, *(file.read_bytes() for file in files if "VAE" not in file.name)]
        return functools.partial(read_safetensors, valid=contents), [
            *(bytes([k, 1, 2, 3]) for k in range(len(contents))),
            b"\xc0" + header,
            b"\xff" + len(header).to_bytes(8, "little") + header + bytes(32),
        ]
    if target in ("torch", "pickle"):
        valid = small_torch(folder / "adapter.safetensors", legacy=target == "pickle")
        seeds = [b"\xff" + valid]
        if target == "torch":
            with zipfile.ZipFile(io.BytesIO(valid)) as archive:
                seeds.append(b"\0" + archive.read("archive/data.pkl"))
        return functools.partial(read_torch, adapter=valid, as_zip=target == "torch"), seeds
    return read_gguf, [small_gguf(folder)]


def main() -> None:
    options = parse(__doc__, TARGETS)
    read, seeds = make(options.target, Path(mkdtemp()))
    fuzz(Fuzzer(options.target, read, options.seconds, options.out, 500), seeds)


if __name__ == "__main__":
    main()
