"""`flashmotion edit` on the command line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from flashmotion_jax.cli.main import main
from helpers.editor_server import png


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "missing.png"], "no image at missing.png"),
        (["--model", "missing"], "missing does not exist"),
    ],
)
def test_bad_input_is_status_2(arguments, message, capsys):
    assert main(["edit", "--no-open", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["edit", "--no-open"]) == 1
    assert 'needs uvicorn: pip install "flashmotion_jax[edit]"' in capsys.readouterr().err


def test_a_port_that_is_taken_is_status_1(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["edit", "--no-open", "--port", port, "--history", str(tmp_path)]) == 1
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_serves_until_it_is_interrupted(tmp_path, host):
    (tmp_path / "photo.png").write_bytes(png(40, 30))
    arguments = ["--image", str(tmp_path / "photo.png"), "--port", "0", "--host", host]
    command = [sys.executable, "-m", "flashmotion_jax.cli", "edit", "--no-open", *arguments]
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            line = server.stdout.readline()
            port, token = re.search(r":(\d+)/(?:\?token=(\S+))? ", line).groups()
            assert (token is None) == (host == "127.0.0.1")
            url = f"http://127.0.0.1:{port}"
            headers = {"authorization": f"Bearer {token}"}
            assert httpx.get(f"{url}/api/start", headers=headers).json() == {"image": "photo.png"}
            if token:
                assert httpx.get(f"{url}/api/start").status_code == 401
        finally:
            server.send_signal(signal.SIGINT)
        last = server.stdout.read().splitlines()[-1]
    assert last == f"ended; results are in {tmp_path / 'flashmotion' / 'editor'}"
    assert server.returncode == 0
