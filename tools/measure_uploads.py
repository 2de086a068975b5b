"""Memory and time of the editor for small files that hold much, and under load.

    python tools/measure_uploads.py files          one request each, in a process of its own
    python tools/measure_uploads.py load           uploads, parallel requests, slow clients
    python tools/measure_uploads.py rounds [N]     the same 200 uploads again and again

All print tables for docs/results.md. Linux only.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

Parts = list[tuple[str, str, bytes]]  # field, file name, content

TRAJECTORY: dict[str, Any] = {
    "version": 1,
    "canvas": {"width": 64, "height": 64},
    "num_frames": 9,
    "fps": 8,
    "objects": [{"id": 1, "keyframes": [{"frame": 0, "box": [0.1, 0.2, 0.4, 0.6]}]}],
}


def image(height: int, width: int, kind: str = "PNG", noise: bool = False) -> bytes:
    """An encoded image of one color, or of noise."""
    pixels = np.zeros((height, width, 3), np.uint8)
    if noise:
        pixels[:] = np.random.default_rng(0).integers(0, 2, pixels.shape, np.uint8) * 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def smooth_labels() -> bytes:
    """Two discs, enlarged with interpolation."""
    y, x = np.mgrid[:410, :590]
    labels = np.zeros((410, 590, 3), np.uint8)
    labels[(y - 150) ** 2 + (x - 200) ** 2 < 90**2] = 220, 30, 40
    labels[(y - 250) ** 2 + (x - 420) ** 2 < 60**2] = 30, 90, 220
    file = io.BytesIO()
    Image.fromarray(labels).resize((5900, 4100), Image.Resampling.BILINEAR).save(file, "PNG")
    return file.getvalue()


def video(num_frames: int, height: int, width: int) -> bytes:
    """An mp4 of two boxes that move on black."""
    from flashmotion_jax.media.videos import write_video

    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for frame in range(num_frames):
        frames[frame, 100:300, 50 + frame % 400 : 250 + frame % 400] = 128, 0, 0
        frames[frame, 350:600, 700:900] = 0, 128, 0
    with TemporaryDirectory() as folder:
        write_video(Path(folder) / "a.mp4", frames, 24)
        return (Path(folder) / "a.mp4").read_bytes()


def npy(shape: tuple[int, ...], dtype: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype))
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def ati(tracks: int) -> bytes:
    import torch

    content, file = io.BytesIO(), io.BytesIO()
    np.savez_compressed(content, array=np.zeros((tracks, 121, 1, 3), np.float32))
    torch.save(content.getvalue(), file)
    return file.getvalue()


def trajectory(**changes: Any) -> bytes:
    return json.dumps(TRAJECTORY | changes).encode()


def many_objects(count: int, num_frames: int, side: int = 64) -> bytes:
    objects = [
        {"id": k + 1, "keyframes": TRAJECTORY["objects"][0]["keyframes"]} for k in range(count)
    ]
    canvas = {"width": side, "height": side}
    return trajectory(objects=objects, num_frames=num_frames, canvas=canvas)


def many_masks(count: int, side: int) -> bytes:
    mask = {"size": [side, side], "counts": [0, side * side]}
    keyframes = TRAJECTORY["objects"][0]["keyframes"]
    objects = [{"id": k + 1, "mask": mask, "keyframes": keyframes} for k in range(count)]
    return trajectory(objects=objects, canvas={"width": side, "height": side})


def exported(content: bytes, **fields: str) -> tuple[str, Parts, dict[str, str]]:
    form = {"format": "magicmotion_mp4", "height": "704", "width": "1280", "num_frames": "9"}
    return "/api/export", [("trajectory", "t.json", content)], form | fields


def imported(name: str, content: bytes) -> tuple[str, Parts, dict[str, str]]:
    return "/api/import", [("files", name, content)], {}


#: Name of a row -> what is sent.
CASES: dict[str, Callable[[], tuple[str, Parts, dict[str, str]]]] = {
    "PNG, 13,000 x 13,000": lambda: (
        "/api/image", [("image", "a.png", image(13_000, 13_000))], {}),
    "PNG, 4160 x 6000, the largest photograph": lambda: (
        "/api/image", [("image", "a.png", image(4160, 6000, noise=True))], {}),
    "mp4, 500 frames of 704 x 1280": lambda: imported("a.mp4", video(500, 704, 1280)),
    "mp4, 121 frames of 704 x 1280, the published size": lambda: imported(
        "a.mp4", video(121, 704, 1280)),
    "label PNG, 4100 x 5900, resized smoothly": lambda: imported("a.png", smooth_labels()),
    "zip with an npy, 340 frames of 704 x 1280": lambda: imported(
        "a.zip", zipped({"a.npy": npy((340, 704, 1280, 3), "u1")})),
    "zip with an npy of tracks, 60,000,000 points": lambda: imported(
        "a.zip", zipped({"a.npy": npy((121, 500_000, 2), "f4")})),
    "zip with 300,000 empty files": lambda: imported(
        "a.zip", zipped({f"{k}.json": b"" for k in range(300_000)})),
    "ATI .pth, 300,000 tracks": lambda: imported("a.pth", ati(300_000)),
    "ATI .pth, 2,000 tracks": lambda: imported("a.pth", ati(2000)),
    "20 masks of 16,384 x 16,384": lambda: exported(many_masks(20, 16_384)),
    "20 masks of 5000 x 5000": lambda: exported(many_masks(20, 5000)),
    "2,000 objects on 10,000 frames": lambda: exported(many_objects(2000, 10_000)),
    "2,000 objects on 121 frames": lambda: exported(many_objects(2000, 121)),
    "JSON, 2.7 MB of unknown keys": lambda: exported(
        trajectory(**{f"key{k:06d}": k for k in range(160_000)})),
    "JSON, one unknown key of 2.7 MB": lambda: exported(trajectory(**{"k" * 2_700_000: 1})),
    "JSON, 10,000,000 empty objects": lambda: imported(
        "a.json", b'{"objects":[' + b"{}," * 10_000_000 + b"{}]}"),
    "JSON, 300,000 wrong objects": lambda: imported(
        "a.json", trajectory(objects=[{"id": "x"}] * 300_000)),
    "JSON, 10,000,000 deep": lambda: imported("a.json", b'{"objects":' + b"[" * 10_000_000),
    "spline JSON, 500,000 points": lambda: imported(
        "a.json", json.dumps([[{"x": 1, "y": 2}] * 500_000]).encode()),
}  # fmt: skip


def peak_mb(reset: bool = False) -> float:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def measure(name: str) -> None:
    """Sends one request to an editor in this process, and prints a row."""
    from serve_editor import GrayGenerator
    from starlette.testclient import TestClient

    from flashmotion_jax.editor.app import make_app

    route, parts, fields = CASES[name]()
    files = [(field, (file, content)) for field, file, content in parts]
    size = sum(len(content) for _, _, content in parts)
    with TemporaryDirectory() as home:
        app = make_app(GrayGenerator(), Path(home))
        options = {"base_url": "http://127.0.0.1", "raise_server_exceptions": False}
        with TestClient(app, **options) as client:
            # Imports what the request needs, so that only the request itself is measured.
            client.post("/api/import", files={"files": ("a.json", trajectory())})
            if route == "/api/import" and parts[0][1].endswith((".pth", ".mp4", ".png")):
                small = {".pth": lambda: ati(1), ".mp4": lambda: video(5, 704, 1280)}
                content = small.get(parts[0][1][-4:], lambda: image(64, 64))()
                client.post(route, files={"files": (parts[0][1], content)})
            before, start = peak_mb(reset=True), time.perf_counter()
            answer = client.post(route, files=files, data=fields)
            seconds, grown = time.perf_counter() - start, peak_mb() - before
    text = answer.json()["error"] if answer.status_code >= 400 else f"{len(answer.content):,} bytes"
    said = " ".join(text.split())
    print(
        f"| {name} | {size:,} | {answer.status_code}: {said[:90]} ({len(text)}) | {grown:.0f} MiB "
        f"| {seconds:.1f} |",
        flush=True,
    )


def usage(process: subprocess.Popen[str]) -> tuple[int, int, int]:
    """Resident MiB, open files and threads of a server."""
    folder = Path(f"/proc/{process.pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return (
        int(status["VmRSS"].split()[0]) // 1024,
        len(list((folder / "fd").iterdir())),
        int(status["Threads"]),
    )


def post(address: str, route: str, parts: Parts, fields: dict[str, str]) -> int:
    """Sends a form and returns the status; 0 for a closed connection."""
    body = io.BytesIO()
    for name, value in fields.items():
        text = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        body.write(text.encode())
    for field, file, content in parts:
        head = f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="{file}"\r\n\r\n'
        body.write(head.encode() + content + b"\r\n")
    body.write(b"--x--\r\n")
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(address + route, body.getvalue(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def slow_clients(port: int, count: int) -> list[socket.socket]:
    """Connections that send a head and a part of a body, and then nothing."""
    clients = []
    for k in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        head = "POST /api/import HTTP/1.1\r\nHost: localhost\r\n"
        if k % 2:
            head += "Content-Type: multipart/form-data; boundary=x\r\n"
            head += "Content-Length: 9999\r\n\r\n--x"
        client.sendall(head.encode())
        clients.append(client)
    return clients


def kinds_of_requests() -> list[tuple[str, Parts, dict[str, str]]]:
    """Seven kinds of uploads."""
    photo, labels = image(1500, 2000, noise=True), image(300, 400)
    return [
        ("/api/image", [("image", "a.png", photo)], {}),
        imported("a.png", labels),
        imported("a.json", trajectory()),
        exported(trajectory(), num_frames="9"),
        imported("a.zip", zipped({"trajectory.json": trajectory()})),
        imported("a.json", b"{"),
        ("/api/select", [("image", "a.png", labels)], {"x": "0.5", "y": "0.5"}),
    ]


def phases(address: str, port: int) -> Iterator[tuple[str, list[int]]]:
    """Name of a phase and the statuses of its requests."""
    kinds = kinds_of_requests()
    yield "200 uploads, one after another", [post(address, *kinds[k % 7]) for k in range(200)]
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda k: post(address, *kinds[k % 7]), range(200)))
        yield "200 uploads, 50 at a time", found
        job = ("/api/jobs", [("trajectory", "t.json", trajectory())], {"adapter": "none"})
        yield "100 jobs, 50 at a time", list(pool.map(lambda _: post(address, *job), range(100)))
    clients = slow_clients(port, 100)
    yield (
        "50 uploads beside 100 slow clients",
        [post(address, *kinds[k % 7]) for k in range(50)],
    )
    for client in clients:
        client.close()
    time.sleep(2)
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda k: post(address, *kinds[k % 7]), range(200)))
        yield "200 uploads, 50 at a time, again", found


@contextmanager
def serving() -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """An editor in a process of its own, its address and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with TemporaryDirectory() as home:
        command = [
            sys.executable,
            str(Path(__file__).with_name("serve_editor.py")),
            str(port),
            home,
        ]
        server = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        try:
            while post(address, "/api/import", [("files", "a.json", trajectory())], {}) != 200:
                time.sleep(0.5)
            yield server, address, port
        finally:
            server.terminate()
            server.wait()


def load() -> None:
    """Runs a server, and prints a row per phase."""
    with serving() as (server, address, port):
        print(f"| start | | {' | '.join(map(str, usage(server)))} | |", flush=True)
        start = time.perf_counter()
        for name, statuses in phases(address, port):
            counts = {status: statuses.count(status) for status in sorted(set(statuses))}
            seconds = time.perf_counter() - start
            time.sleep(1)
            row = " | ".join(map(str, usage(server)))
            print(f"| {name} | {counts} | {row} | {seconds:.0f} |", flush=True)
            start = time.perf_counter()


def rounds(count: int) -> None:
    """Sends the same uploads again and again, and prints the memory in use after each round."""
    with serving() as (server, address, _), ThreadPoolExecutor(50) as pool:
        kinds = kinds_of_requests()
        for number in range(count):
            list(pool.map(lambda k: post(address, *kinds[k % 7]), range(200)))
            time.sleep(1)
            server.send_signal(signal.SIGUSR1)
            print(number + 1, server.stdout.readline().strip(), flush=True)


def main() -> None:
    if sys.argv[1:2] == ["load"]:
        load()
        return
    if sys.argv[1:2] == ["rounds"]:
        rounds(int(sys.argv[2]) if sys.argv[2:] else 12)
        return
    chosen = [name for name in CASES if not sys.argv[2:] or name in sys.argv[2:]]
    for name in chosen:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(name,))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
