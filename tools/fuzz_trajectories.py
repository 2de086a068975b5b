"""Fuzzes the readers of trajectories with atheris: coverage-guided mutations of small valid files.

    pip install atheris
    python tools/fuzz_trajectories.py spline --seconds 240 [--out FOLDER]

What is found is an exception that is no `UserError`, more than 5 s of CPU time, or memory that
grows by more than 0.5 GB. The input of each kind of finding is kept in FOLDER; the last line is
JSON.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import atheris
import numpy as np
from PIL import Image

with atheris.instrument_imports(include=["flashmotion_jax"]):
    from flashmotion_jax.runtime.errors import UserError
    from flashmotion_jax.trajectory import Canvas, Keyframe, TrackedObject, Trajectory, load_maps
    from flashmotion_jax.trajectory.formats import (
        ExportRequest,
        ImportOptions,
        read_trajectory,
        write_trajectory,
    )
    from flashmotion_jax.trajectory.masks import Mask

MOST_SECONDS, MOST_BYTES = 5.0, 500_000_000
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


class Fuzzer:
    """Runs inputs of one target, and keeps one input of each kind of finding.

    Args:
      target: A name in `TARGETS`.
      seconds: How long to run.
      out: Folder of the findings.
    """

    def __init__(self, target: str, seconds: float, out: Path):
        self.target, self.out = target, out
        self.started, self.seconds = time.monotonic(), seconds
        self.executions = self.accepted = 0
        self.slowest, self.largest, self.longest = 0.0, 0, 0
        self.found: dict[str, str] = {}
        self.folder = Path(mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))

    def __call__(self, data: bytes) -> None:
        if time.monotonic() - self.started > self.seconds:
            self.finish()
        _, files = TARGETS[self.target]
        if data[:1] in b"\x00\x01\x02\x03" and self.target in ("ati", "wan_move", "maps_array"):
            contents = [structured(self.target, data[1:])]
        else:
            contents = data.split(SPLIT)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for file, content in zip(files, contents, strict=False):
            (self.folder / file).write_bytes(content)
        several = self.target in ("wan_move", "maps_images", "magicdata")
        path = self.folder if several else self.folder / files[0]
        before = peak_bytes(reset=True)
        began = time.process_time()
        problem = self.run(path)
        elapsed, grown = time.process_time() - began, peak_bytes() - before
        self.slowest, self.largest = max(self.slowest, elapsed), max(self.largest, grown)
        if elapsed > MOST_SECONDS:
            problem = problem or "slow"
        if grown > MOST_BYTES:
            problem = problem or "large"
        self.executions += 1
        if problem and problem not in self.found:
            file = self.out / f"{self.target}-{len(self.found)}.bin"
            file.write_bytes(data)
            self.found[problem] = f"{elapsed:.1f} s, {grown / 1e6:.0f} MB, {file}"
            print(f"FOUND {self.target}: {problem}", file=sys.stderr, flush=True)

    def run(self, path: Path) -> str:
        """Reads a file as `--trajectory` and the editor do; returns what is wrong, or ""."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = read_trajectory(path, ImportOptions(Canvas(64, 32), 5))
                Trajectory.from_dict(json.loads(json.dumps(found.trajectory.to_dict())))
                load_maps(path, **SIZE, canvas=Canvas(64, 32))
            self.accepted += 1
        except UserError as error:
            self.longest = max(self.longest, len(str(error)))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return ""

    def finish(self) -> None:
        """Prints the result and ends the process, as libFuzzer has no other way to stop."""
        result = {
            "target": self.target,
            "executions": self.executions,
            "accepted": self.accepted,
            "slowest_s": round(self.slowest, 2),
            "largest_mb": round(self.largest / 1e6),
            "longest_message": self.longest,
            "found": self.found,
        }
        shutil.rmtree(self.folder, ignore_errors=True)
        print(json.dumps(result), flush=True)
        import os

        os._exit(0)


def peak_bytes(reset: bool = False) -> int:
    """The largest resident size of this process, or since the last reset (on Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    options = parser.parse_args()
    csv.field_size_limit(131072)
    options.out.mkdir(parents=True, exist_ok=True)
    corpus = options.out / f"corpus-{options.target}"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds(options.target, Path(mkdtemp()))):
        (corpus / f"seed-{number}").write_bytes(seed)
    fuzzer = Fuzzer(options.target, options.seconds, options.out)
    limits = ["-rss_limit_mb=0", "-timeout=120", "-max_len=20000", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], fuzzer)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
