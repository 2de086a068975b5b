"""Fuzzes the readers of trajectories with atheris: coverage-guided mutations of small valid files.

    pip install atheris
    python tools/fuzz_trajectories.py spline --seconds 240 [--out FOLDER]

What is found is an exception that is no `UserError`, more than 5 s of CPU time, or memory that
grows by more than 0.5 GB. The input of each kind of finding is kept in FOLDER; the last line is
JSON.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import atheris
import numpy as np
from PIL import Image

with atheris.instrument_imports(include=["flashmotion_jax"]):
    from fuzzing import Fuzzer, fuzz, parse

    from flashmotion_jax.trajectory import Canvas, Keyframe, TrackedObject, Trajectory, load_maps
    from flashmotion_jax.trajectory.formats import (
        ExportRequest,
        ImportOptions,
        read_trajectory,
        write_trajectory,
    )
    from flashmotion_jax.trajectory.masks import Mask

SIZE = {"num_frames": 5, "height": 32, "width": 64}

#: Name of a target -> (format that writes its seed, names of the files that a mutation replaces).
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "trajectory": ("trajectory", ("a.json",)),
    "spline": ("spline", ("a.json",)),
    "wan_move": ("wan_move", ("tracks.npy", "visibility.npy")),
    "ati": ("ati", ("a.pth",)),
    "maps_array": ("magicmotion_png", ("a.npy",)),
    "maps_video": ("magicmotion_mp4", ("a.mp4",)),
    "maps_images": ("magicmotion_png", ("00000.png", "00001.png")),
    "labels": ("magicmotion_png", ("a.png",)),
    "magicdata": ("magicdata", ("MagicData.csv",)),
}
SPLIT = b"\xff--file--\xff"


def sample_trajectory() -> Trajectory:
    """Two objects, one with a mask, that move and leave the image."""
    mask_HW = np.zeros((32, 64), bool)
    mask_HW[4:12, 8:20] = True
    ends = ((0.2, 0.2, 0.5, 0.6), (0.6, 0.4, 1.2, 0.9))
    objects = tuple(
        TrackedObject(
            k,
            (Keyframe(0, (0.1 * k, 0.1, 0.1 * k + 0.2, 0.4), "smooth"), Keyframe(4, end)),
            mask=Mask.from_array(mask_HW) if k == 1 else None,
        )
        for k, end in enumerate(ends, start=1)
    )
    return Trajectory(Canvas(64, 32), 5, 24.0, objects, sparse_frames=(0, 1, 4))


def seeds(target: str, folder: Path) -> list[bytes]:
    """Valid inputs of a target."""
    name, files = TARGETS[target]
    trajectory = sample_trajectory()
    request = ExportRequest(trajectory, "a", 32, 64, 5, 24.0, "box")
    written = write_trajectory(name, request, folder)
    if written.suffix == ".zip":
        shutil.unpack_archive(written, folder / "unpacked")
    found = sorted((folder / "unpacked").rglob("*")) if written.suffix == ".zip" else [written]
    if target == "maps_array":
        buffer = io.BytesIO()
        np.save(buffer, np.stack([np.array(Image.open(one)) for one in found if one.is_file()]))
        return [buffer.getvalue()]
    if target == "magicdata":
        found = [one for one in found if one.name == "MagicData.csv"]
    by_name = [one.read_bytes() for one in found if one.is_file()][: len(files)]
    more = EXTRA.get(target, [])
    return [SPLIT.join(by_name), *more]


EXTRA: dict[str, list[bytes]] = {
    "spline": [
        b'"[{\\"x\\": 1, \\"y\\": 2}]", [[{"x": 1.5, "y": -2}], []]',
        b"[{'x': 1, 'y': 2}, {'x': 1e3, 'y': 2}]\n[\"[]\"]",
        '\ufeff[[{"x": 1, "y": 2}]]'.encode("utf-16"),
    ],
    "magicdata": [
        "\ufeffPath;Text;num_frames\r\n\r\nv0.mp4;a dog;5\r\n".encode(),
        "path\ttext\nv0.mp4\ta dog\n".encode("utf-16"),
        b'{"path": "v0.mp4", "text": "a dog"}\n{"video": "v1.MOV"}\n',
    ],
}


def structured(target: str, data: bytes) -> bytes:
    """An array of any dtype and shape, as bytes of the format: raw bytes seldom get that far."""
    provider = atheris.FuzzedDataProvider(data)
    dtypes = ("f4", "f8", "i8", "u1", "?", "c8", "M8[s]", "S3", "f2", ">f4", "U2")
    shape = tuple(provider.ConsumeIntInRange(0, 4) for _ in range(provider.ConsumeIntInRange(0, 5)))
    if target == "ati" and provider.ConsumeBool():
        shape = (provider.ConsumeIntInRange(0, 3), 121, 1, provider.ConsumeIntInRange(2, 4))
    if target == "wan_move" and provider.ConsumeBool():
        shape = (provider.ConsumeIntInRange(1, 3), provider.ConsumeIntInRange(1, 3), 2)
    if target == "maps_array" and provider.ConsumeBool():
        shape = (*(provider.ConsumeIntInRange(1, 9) for _ in range(3)), 3)
    dtype = np.dtype(dtypes[provider.ConsumeIntInRange(0, len(dtypes) - 1)])
    count = int(np.prod(shape, dtype=np.int64))
    raw = provider.ConsumeBytes(count * dtype.itemsize).ljust(count * dtype.itemsize, b"\x7f")
    array = np.frombuffer(raw, dtype, count).reshape(shape)
    buffer = io.BytesIO()
    if target != "ati":
        np.save(buffer, array)
        return buffer.getvalue()
    import torch

    np.savez_compressed(buffer, array=array)
    content: Any = buffer.getvalue()
    kinds: list[Callable[[], Any]] = [
        lambda: content,
        lambda: {"array": content},
        lambda: torch.zeros(2),
        lambda: content[: len(content) // 2],
        lambda: [content],
    ]
    file = io.BytesIO()
    torch.save(kinds[provider.ConsumeIntInRange(0, 9) % len(kinds)](), file)
    return file.getvalue()


def read(target: str, data: bytes, folder: Path) -> None:
    """Reads an input as `--trajectory` and the editor do."""
    _, files = TARGETS[target]
    if data[:1] in b"\x00\x01\x02\x03" and target in ("ati", "wan_move", "maps_array"):
        contents = [structured(target, data[1:])]
    else:
        contents = data.split(SPLIT)
    for file, content in zip(files, contents, strict=False):
        (folder / file).write_bytes(content)
    path = folder if target in ("wan_move", "maps_images", "magicdata") else folder / files[0]
    found = read_trajectory(path, ImportOptions(Canvas(64, 32), 5))
    Trajectory.from_dict(json.loads(json.dumps(found.trajectory.to_dict())))
    load_maps(path, **SIZE, canvas=Canvas(64, 32))


def main() -> None:
    options = parse(__doc__, TARGETS)
    csv.field_size_limit(131072)
    target = options.target
    read_it = functools.partial(read, target)
    fuzz(
        Fuzzer(target, read_it, options.seconds, options.out),
        seeds(target, Path(mkdtemp())),
    )


if __name__ == "__main__":
    main()
