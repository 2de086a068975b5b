"""A server of small repositories in the protocol of the Hugging Face Hub, with faults on request.

Large files answer as those in LFS do: a redirect to another host, with the size and the SHA-256 in
headers, and ranges of bytes there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import huggingface_hub

from flashmotion_jax.cli.main import main
from flashmotion_jax.hub import transfer

#: Files of at least this size are served as those in LFS.
LFS = 1000


class HubServer:
    """Repositories in memory, served on a free port.

    Attributes:
      files: By repository ("owner/name", "datasets/owner/name"), name to content.
      requests: Method, path and the header Range of every request.
      headers: The headers of every request.
      cuts: By name of a file, after how many bytes of an answer the connection is closed, in turn.
      stalls: By name of a file, after how many bytes the connection hangs.
      wrong: Names of files whose first byte is served wrong, with the number of times.
      statuses: By name of a file, statuses to answer before the file is served, in turn.
      gated: Repositories that only requests with `token` may read.
      listing: Replaces the entries of a repository's listing.
      pages: Replaces the answers of the API, as the login page of a network does.
      answer_headers: Replaces headers of the answers with a file's bytes.
      ignores_ranges: Whether every request is answered with the whole file.
    """

    token = "hf_right"

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.cuts: dict[str, list[int]] = {}
        self.stalls: dict[str, int] = {}
        self.wrong: dict[str, int] = {}
        self.statuses: dict[str, list[int]] = {}
        self.gated: set[str] = set()
        self.listing = lambda entries: entries
        self.pages: bytes | None = None
        self.answer_headers: dict[str, str] = {}
        self.ignores_ranges = False
        self.lock = threading.Lock()

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.storage = f"http://localhost:{self.server.server_port}"  # another host, for a client
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def commit(self, repository):
        """The commit of the present files: it changes with them."""
        digest = hashlib.sha1()
        for name, content in sorted(self.files[repository].items()):
            digest.update(f"{name} {len(content)} ".encode(errors="replace"))
            digest.update(content)
        return digest.hexdigest()

    def entries(self, repository):
        return self.listing([_entry(*item) for item in self.files[repository].items()])

    def bytes_sent(self, name):
        return [
            range_ for method, path, range_ in self.requests if path == name and method == "GET"
        ]


def _entry(name, content):
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if len(content) >= LFS:
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.headers.append({key.lower(): v for key, v in self.headers.items()})
        for pattern, method in (
            (r"/api/(?:models/)?((?:datasets/)?[^/]+/[^/]+)/revision/(.+)", self.info),
            (r"/api/(?:models/)?((?:datasets/)?[^/]+/[^/]+)/tree/([^/]+)", self.tree),
            (r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
            (r"/lfs/((?:datasets/)?[^/]+/[^/]+)/(.+)", self.content),
        ):
            if match := re.fullmatch(pattern, path):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    method(*match.groups())
                return
        self.reply(404)

    def reply(self, status, content=b"", **headers):
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def known(self, repository):
        if repository in self.hub.files:
            return True
        self.reply(404, X_Error_Code="RepoNotFound")
        return False

    def info(self, repository, revision):
        if not self.known(repository):
            return
        if self.hub.pages is not None:
            self.reply(200, self.hub.pages)
            return
        commit = self.hub.commit(repository)
        if revision not in ("main", commit):
            self.reply(404, X_Error_Code="RevisionNotFound")
            return
        self.reply(200, json.dumps({"id": repository, "sha": commit, "siblings": []}).encode())

    def tree(self, repository, commit):
        if self.known(repository):
            self.reply(200, json.dumps(self.hub.entries(repository)).encode())

    def resolve(self, repository, commit, name):
        hub = self.hub
        if repository in hub.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            status = 403 if "Authorization" in self.headers else 401
            self.reply(status, X_Error_Code="GatedRepo")
            return
        if name not in hub.files[repository]:
            self.reply(404, X_Error_Code="EntryNotFound")
            return
        content = hub.files[repository][name]
        facts = {"X_Repo_Commit": hub.commit(repository)}
        if len(content) < LFS:
            etag = _entry(name, content)["oid"]
            self.send_bytes(name, content, ETag=f'"{etag}"', **facts)
            return
        self.reply(
            302,
            Location=f"{hub.storage}/lfs/{repository}/{name}",
            X_Linked_Etag=f'"{hashlib.sha256(content).hexdigest()}"',
            X_Linked_Size=str(len(content)),
            **facts,
        )

    def content(self, repository, name):
        self.send_bytes(name, self.hub.files[repository][name])

    def send_bytes(self, name, content, **headers):
        hub = self.hub
        range_ = self.headers.get("Range")
        with hub.lock:
            hub.requests.append((self.command, name, range_))
            cut = hub.cuts[name].pop(0) if hub.cuts.get(name) and self.command == "GET" else None
            status = hub.statuses[name].pop(0) if hub.statuses.get(name) else None
            wrong = hub.wrong.get(name, 0)
            if wrong and self.command == "GET":
                hub.wrong[name] = wrong - 1
        if status:
            self.reply(status, Retry_After="0")
            return
        if wrong:
            content = bytes([content[0] ^ 255]) + content[1:]
        status, size = 200, len(content)
        if range_ and not hub.ignores_ranges:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", range_).groups()
            start, end = int(first), min(int(last or size), size - 1) + 1
            if start >= size:
                self.reply(416, Content_Range=f"bytes */{size}")
                return
            content = content[start:end]
            status = 206
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{size}"
        self.send_response(status)
        for key, value in {"Content_Length": len(content), **headers, **hub.answer_headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            sent = hub.stalls.get(name, cut)
            self.wfile.write(content if sent is None else content[:sent])
            self.wfile.flush()
            if name in hub.stalls:
                time.sleep(60)
        if cut is not None:
            self.close_connection = True


@contextlib.contextmanager
def served_hub(monkeypatch, folder):
    """Yields a server that huggingface_hub takes for the Hub, for a user without a token."""
    with HubServer() as server:
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "cache"),
            "HF_TOKEN_PATH": str(folder / "token"),
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(transfer, "DELAY", 0.001)
        yield server
        huggingface_hub.close_session()


def download(*arguments) -> int:
    """Runs `flashmotion download`, and returns its exit status."""
    return main(["download", *map(str, arguments)])


def requested(hub) -> set[str]:
    """The files that were read from the server."""
    return {name for method, name, _ in hub.requests if method == "GET"}
