"""`flashmotion edit`: the trajectory editor in a browser."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

from flashmotion_jax.cli import options

#: Tried first; if it is in use, any free port.
PORT = 8017
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser("edit", help="draw trajectories and generate videos in a browser")
    add = parser.add_argument
    add("--image", type=options.path_text, metavar="F", help="image to start with (default: none)")
    add("--port", type=int, metavar="N", help=f"port (default: {PORT}, or another free one)")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; except for 127.0.0.1, access needs the token in the printed "
        "link (default: 127.0.0.1)",
    )
    options.add_model(parser)
    options.add_weights(parser, "bfloat16, on a CPU float32; 8 bits if they are stored so")
    add(
        "--history",
        metavar="DIR",
        help=f"folder for results and their projects (default: {_home()})",
    )
    add("--no-open", action="store_true", help="do not open a browser")
    options.set_outputs(parser, folders=("history",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves the editor until interrupted.

    Raises:
      UserError: The image or the model cannot be read.
      ImportError: The packages of the extra `edit` are not installed.
      OSError: The port is in use, or the address does not belong to this machine.
    """
    try:
        import uvicorn

        from flashmotion_jax.editor.app import make_app
    except ImportError as error:
        install = 'pip install "flashmotion_jax[edit]"'
        raise ImportError(f"the editor needs {error.name}: {install}") from error
    from flashmotion_jax.editor.generator import Generator
    from flashmotion_jax.media.images import read_image

    image = Path(args.image) if args.image else None
    if image is not None:
        read_image(image)
    generator = Generator(Path(args.model) if args.model else None, args.weights)
    if args.model:
        generator.facts()
    token = None if args.host in _LOOPBACK else secrets.token_urlsafe(24)
    home = Path(args.history) if args.history else _home()
    app = make_app(generator, home, image=image, token=token)
    listener = _listen(args.host, args.port)
    link = _link(args.host, listener.getsockname()[1], token)
    print(f"the editor is at {link} (stop it with Ctrl-C); results go to {home}", flush=True)
    if not args.no_open:
        threading.Timer(0.5, webbrowser.open, [link]).start()
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    with contextlib.suppress(KeyboardInterrupt):  # raised again after cleaning up
        uvicorn.Server(config).run(sockets=[listener])
    print(f"ended; results are in {home}")
    return 0


def _home() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "flashmotion" / "editor"


def _listen(host: str, port: int | None) -> socket.socket:
    """Opens a listening socket, so that the printed link works at once.

    Raises:
      OSError: The port is in use, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (PORT, 0) if port is None else (port,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
        except OSError as error:
            listener.close()
            if candidate != PORT or port is not None:
                raise OSError(
                    f"cannot listen at {host}:{candidate} ({error.strerror}): another --port or "
                    "--host?"
                ) from error
            continue
        listener.listen(128)
        return listener
    raise AssertionError("port 0 is always tried last")


def _link(host: str, port: int, token: str | None) -> str:
    name = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname()
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
