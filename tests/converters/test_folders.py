from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flashmotion_jax.converters.folders import open_folder
from flashmotion_jax.converters.sources import locate
from flashmotion_jax.runtime.errors import UserError

COMMIT = "0" * 40
HALF = 15_000_000  # bytes after which a connection breaks; the client keeps pieces of 10 MB


@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("diffusion_pytorch_model.safetensors.index.json", "original"),
        ("diffusion_pytorch_model-00001-of-00003.safetensors", "original"),
        ("Wan2.2_VAE.pth", "original"),
        ("models_t5_umt5-xxl-enc-bf16.pth", "original"),
        ("transformer/diffusion_pytorch_model.safetensors.index.json", "diffusers"),
        ("vae/diffusion_pytorch_model.safetensors", "diffusers"),
        ("text_encoder/model-00001-of-00003.safetensors", "diffusers"),
    ],
)
def test_layouts_are_known_by_their_files(tmp_path, file, layout):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert open_folder(tmp_path).layout == layout


def test_local_paths_come_first(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("owner/name", ["dit"]).is_dir()


@pytest.mark.parametrize("source", ["/no/such/folder", "./nothing/here", "nothing", "a b/c"])
def test_sources_that_are_no_names(source):
    with pytest.raises(ValueError, match="does not exist; expected"):
        locate(source, ["dit"])


def test_a_path_with_an_error_says_what_is_there(tmp_path, monkeypatch):
    """Even if it reads as the name of a file on the hub."""
    (tmp_path / "ckpts" / "FastGenerator").mkdir(parents=True)
    (tmp_path / "ckpts" / "FastGenerator" / "model.pth").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"model\.pt does not exist; .* has model\.pth"):
        locate("ckpts/FastGenerator/model.pt", ())
    with pytest.raises(UserError, match="ckpts has FastGenerator"):
        locate("ckpts/Fast/model.pt", ())


def test_a_file_on_a_hub_that_is_not_there_fails_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(OSError, match=r"FastGenerator/model\.pt is not on this disk"):
        locate("ckpts/FastGenerator/model.pt", ())
    assert time.monotonic() - start < 20


def test_the_cache_of_the_hub(tmp_path):
    repository = tmp_path / "hub" / "models--owner--name"
    for commit in ("a" * 40, "b" * 40):
        (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "blobs").mkdir()
    with pytest.raises(UserError, match=f"give a snapshot: snapshots/{'a' * 40}, snapshots/b"):
        locate(str(repository), ())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40 + "\n")
    assert locate(str(repository), ()).name == "b" * 40
    for folder in (tmp_path, tmp_path / "hub"):
        with pytest.raises(UserError, match=r"is the cache of the hub; .*models--owner--name"):
            locate(str(folder), ())


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"_class_name": "WanTransformer3DModel"}, "dit"),
        ({"_class_name": "AutoencoderKLWan"}, "vae"),
        ({"architectures": ["UMT5EncoderModel"]}, "text_encoder"),
    ],
)
def test_a_component_of_diffusers_is_a_folder_of_its_own(tmp_path, config, kind):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    folder = open_folder(tmp_path)
    assert (folder.layout, list(folder.files), folder.tokenizer) == ("diffusers", [kind], None)


class Hub(ThreadingHTTPServer):
    """As much of the Hugging Face hub as a download asks for, serving one folder."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests = []
        self.breaks = 0  # connections still to break in the middle of a large file

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/owner/name/"):
            files = [file for file in self.server.folder.rglob("*") if file.is_file()]
            names = [file.relative_to(self.server.folder).as_posix() for file in files]
            if "/tree/" in path:
                answer = [
                    {"type": "file", "path": name, "size": file.stat().st_size, "oid": COMMIT}
                    for name, file in zip(names, files, strict=True)
                ]
            else:
                siblings = [{"rfilename": name} for name in names]
                answer = {"id": "owner/name", "sha": COMMIT, "siblings": siblings}
            self.send(json.dumps(answer).encode(), with_body)
        elif path.startswith("/owner/name/resolve/"):
            name = path.split("/", 5)[5]
            content = (self.server.folder / name).read_bytes()
            self.server.requests.append((self.command, name, self.headers.get("Range")))
            etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self.send(content, with_body, etag)
        else:
            self.send_error(404)

    def send(self, content, with_body, headers=()):
        start = 0
        if range_ := self.headers.get("Range"):
            start = int(range_.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        for header, value in dict(headers).items():
            self.send_header(header, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not with_body:
            return
        if self.server.breaks and len(content) > HALF:
            self.server.breaks -= 1
            self.close_connection = True
            content = content[:HALF]
        self.wfile.write(content[start:])


@pytest.fixture
def hub(original):
    server = Hub(original)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def convert(tmp_path, url, *options):
    environment = os.environ | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "converters", "wan22", "owner/name", str(tmp_path / "model")]
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=False
    )


def test_only_needed_files_are_downloaded(hub, tmp_path):
    run = convert(tmp_path, hub.url, "--only", "text")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "model" / "text_encoder" / "params").is_dir()
    assert {name for _, name, _ in hub.requests} == {
        "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl/tokenizer.json",
        "google/umt5-xxl/tokenizer_config.json",
    }


def test_broken_download_goes_on_and_nothing_is_downloaded_twice(hub, tmp_path):
    hub.breaks = 1
    run = convert(tmp_path, hub.url, "--only", "vae")
    assert run.returncode == 0, run.stderr
    (range_,) = [range_ for _, _, range_ in hub.requests if range_]
    assert 0 < int(range_.removeprefix("bytes=").removesuffix("-")) <= HALF
    hub.requests.clear()
    assert convert(tmp_path, hub.url, "--only", "vae", "--overwrite").returncode == 0
    assert not [name for command, name, _ in hub.requests if command == "GET"]


def test_offline(tmp_path):
    run = convert(tmp_path, "http://127.0.0.1:9", "--only", "text")
    assert run.returncode == 1
    assert "check name and network" in run.stderr
    assert "Traceback" not in run.stderr
