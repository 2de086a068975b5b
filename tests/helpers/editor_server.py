"""Servers of the editor for tests, in a thread or without a port, and images to send."""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from flashmotion_jax.editor.app import make_app
from flashmotion_jax.editor.generator import Generator


def client_of(home, generator=None, **options):
    """A client of an application without a port."""
    app = make_app(generator or Generator(None), home, **options)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@contextmanager
def serving(home, generator=None, port=0, **options):
    """A server in a thread of this process; yields its address."""
    app = make_app(generator or Generator(None), home, **options)
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def png(width, height):
    return _encoded(width, height, "PNG")


def jpeg(width, height):
    return _encoded(width, height, "JPEG")


def _encoded(width, height, kind):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = np.linspace(0, 255, width, dtype=np.uint8)[
        :, None
    ]  # as gray as backgrounds of Sprites
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
