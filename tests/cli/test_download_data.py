"""`flashmotion download` of benchmarks, and of the networks of metrics, from a local server."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from flashmotion_jax.hub import transfer
from flashmotion_jax.hub.catalog import ITEMS
from flashmotion_jax.hub.transfer import RemoteFile
from helpers.hub_server import download, requested
from helpers.metric_tensors import SIZES, tensors


@pytest.fixture
def bench(hub, tmp_path):
    """A server with FlashBench, and the arguments that download it."""
    hub.files["datasets/quanhaol/FlashBench"] = {
        "MagicData.csv": b"path,text\n",
        "videos/a.mp4": b"video" * 1000,
        "masks.zip": b"PK" * 1000,
        **{f"masks/a/{i}.png": b"the same mask" for i in range(20)},
    }
    return hub, ["flashbench", tmp_path / "FlashBench"]


def test_a_data_set(bench, capsys):
    hub, (name, folder) = bench
    assert download(name, folder) == 0
    out = capsys.readouterr().out
    assert f"wrote 23 of 23 files to {folder}; unpack masks.zip there" in out
    assert f"flashmotion evaluate --bench flashbench --root {folder}" in out
    files = hub.files["datasets/quanhaol/FlashBench"]
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(files)
    hub.requests.clear()
    assert download(name, folder) == 0
    assert f"{folder} is complete: 23 files; nothing was changed" in capsys.readouterr().out
    assert requested(hub) == set()


def test_files_of_a_data_set_that_were_edited_are_kept(bench, capsys):
    _, (name, folder) = bench
    assert download(name, folder) == 0
    (folder / "MagicData.csv").write_text("path,text\nmine.mp4,mine\n")
    assert download(name, folder) == 2
    assert "1 files of" in (error := capsys.readouterr().err)
    assert "such as MagicData.csv; add --overwrite" in error
    assert download(name, folder, "--overwrite") == 0
    assert (folder / "MagicData.csv").read_bytes() == b"path,text\n"


def test_a_data_set_that_leads_out_of_its_folder(bench, tmp_path, capsys):
    hub, (name, folder) = bench
    hub.files["datasets/quanhaol/FlashBench"]["../evil.csv"] = b"x"
    assert download(name, folder) == 2
    assert "lists a file '../evil.csv', which is not a name within" in capsys.readouterr().err
    assert not (tmp_path / "evil.csv").exists()


def test_networks_of_metrics(hub, tmp_path, capsys, monkeypatch):
    """One from a host that is no Hub, one from a repository; neither is converted twice."""
    torch = pytest.importorskip("torch")
    item = ITEMS["metrics"]
    bodies = {}
    for network in SIZES:
        path = tmp_path / network
        torch.save({key: torch.from_numpy(a) for key, a in tensors(network).items()}, path)
        bodies[network] = path.read_bytes()
    hub.files["Xiaodong/FVD_I3D"] = {"i3d_pretrained_400.pt": bodies["i3d"]}
    hub.files["mseitzer/pytorch-fid"] = {"inception.pth": bodies["inception"]}
    inception = RemoteFile(
        "inception.pth",
        f"{hub.storage}/lfs/mseitzer/pytorch-fid/inception.pth",
        len(bodies["inception"]),
        hashlib.sha256(bodies["inception"]).hexdigest(),
    )
    sources = {**item.sources, "inception": inception}
    monkeypatch.setitem(ITEMS, "metrics", dataclasses.replace(item, sources=sources))
    folder = tmp_path / "metrics"
    assert download("metrics", folder) == 0
    assert f"wrote inception, i3d to {folder}" in capsys.readouterr().out
    found = sorted(path.name.split("-")[0] for path in folder.iterdir())
    assert found == ["i3d", "inception"]
    hub.requests.clear()
    assert download("metrics", folder) == 0
    assert requested(hub) == set()


def environment(hub, tmp_path):
    return os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }


@pytest.mark.parametrize(
    "event", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_an_interrupted_command_continues(bench, tmp_path, event):
    hub, (name, folder) = bench
    body = os.urandom(4_000_000)
    hub.files["datasets/quanhaol/FlashBench"]["videos/b.mp4"] = body
    hub.stalls["videos/b.mp4"] = 3_000_000
    command = [sys.executable, "-m", "flashmotion_jax.cli", "download", name, str(folder)]
    environ = environment(hub, tmp_path)
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    parts = folder / transfer.PARTS
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if any(path.stat().st_size > 2_000_000 for path in parts.glob("*.part")):
                break
        time.sleep(0.05)
    process.send_signal(event)
    _, error = process.communicate(timeout=30)
    assert process.returncode == (130 if event == signal.SIGINT else -event)
    if event == signal.SIGINT:
        assert "interrupted; it left no partial files, so run it again" in error
    assert not (folder / "videos" / "b.mp4").exists()
    hub.stalls.clear()
    hub.requests.clear()
    assert download(name, folder) == 0
    assert (folder / "videos" / "b.mp4").read_bytes() == body
    (range_,) = [r for m, path, r in hub.requests if path == "videos/b.mp4" and m == "GET"]
    assert int(range_.split("=")[1].split("-")[0]) > 1_900_000
