"""Downloads that continue where an earlier run stopped, and end with the bytes that were published.

huggingface_hub (2.4) compares the size of a file but not its SHA-256, and deletes what it has of a
file when it fails. Its client, and with it the user's proxies and certificates, is used here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from tqdm import tqdm

#: Folder for incomplete files, in the folder that they are downloaded to.
PARTS = ".download"
#: Files that are transferred at the same time.
THREADS = 8
#: Attempts in a row that may fail. One that transfers `PROGRESS` bytes starts the count anew.
ATTEMPTS = 6
PROGRESS = 2**20
#: Seconds before the second attempt; each further one waits twice as long.
DELAY = 1.0
#: Seconds that a server may ask for at most. The Hub counts requests in windows of five minutes.
LONGEST_DELAY = 300.0
#: Bytes of a request at most: hosts of large files limit one answer to 50 GB.
SEGMENT = 2**34
CHUNK = 2**20

_GIT_SHA1_LENGTH = 40
_RETRIED = (408, 416, 425, 429)

Advance = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
      name: Path in its repository, with slashes; `repository.require_safe_names` has checked it.
      url: Where it is served.
      size: In bytes.
      digest: SHA-256 in hexadecimal; or, of a file that git itself stores, git's SHA-1.
      headers: Of the request, including the user's token.
    """

    name: str
    url: str
    size: int
    digest: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


class _TransferError(Exception):
    """An answer that another attempt may give correctly."""


def download_files(files: Sequence[RemoteFile], folder: Path) -> None:
    """Downloads files to a folder; those that are there already are verified and kept.

    What an interrupted call has transferred is kept in the folder's `PARTS`, and the next call
    requests the rest.

    Args:
      files: Of any number of repositories; names are unique.
      folder: Created if it does not exist; nobody else writes to it, see `runtime.lock`.

    Raises:
      HfHubHTTPError: The server rejects a request.
      OSError: The network failed repeatedly, the server sends other bytes than it lists, or the
        disk is full.
    """
    complete = {file.name for file in find_complete(files, folder)}
    missing = [file for file in files if file.name not in complete]
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    here = sum(_size(_part(file, folder)) for file in missing)
    stop = threading.Event()
    with (
        _progress("downloading", sum(file.size for file in missing), here) as advance,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        futures = [pool.submit(_download, file, folder, advance, stop) for file in missing]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def find_complete(files: Sequence[RemoteFile], folder: Path) -> list[RemoteFile]:
    """Returns the files that a folder has, after comparing all of their bytes."""
    paths = {file.name: folder / file.name for file in files}
    there = [
        file
        for file in files
        if paths[file.name].is_file() and _size(paths[file.name]) == file.size
    ]
    with (
        _progress("verifying", sum(file.size for file in there)) as advance,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        intact = pool.map(lambda file: is_intact(paths[file.name], file, advance), there)
        return [file for file, good in zip(there, intact, strict=True) if good]


def bytes_left(files: Iterable[RemoteFile], folder: Path) -> int:
    """Returns how many bytes are still to be transferred, judged by the sizes on the disk."""
    return sum(
        max(file.size - _size(_part(file, folder)), 0)
        for file in files
        if _size(folder / file.name) != file.size
    )


def discard_parts(files: Iterable[RemoteFile], folder: Path) -> None:
    """Removes incomplete files that are none of these: of another revision, for instance."""
    wanted = {_part(file, folder) for file in files}
    for part in (folder / PARTS).glob("*.part"):
        if part not in wanted:
            part.unlink()
    with contextlib.suppress(OSError):  # not empty, or not there
        (folder / PARTS).rmdir()


def is_intact(path: Path, file: RemoteFile, advance: Advance = lambda count: None) -> bool:
    """Whether a path has the bytes of a published file."""
    if len(file.digest) == _GIT_SHA1_LENGTH:
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    else:
        digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest() == file.digest


def _download(file: RemoteFile, folder: Path, advance: Advance, stop: threading.Event) -> None:
    part = _part(file, folder)
    for _ in range(2):
        _complete(file, part, advance, stop)
        if stop.is_set():
            return
        if is_intact(part, file):
            target = folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            return
        part.unlink()
        advance(-file.size)
    raise OSError(
        f"{file.name} arrived twice with other bytes than those that its repository lists "
        f"(SHA {file.digest[:12]}...); a proxy or a mirror may change it: try another network, or "
        "set HF_ENDPOINT"
    )


def _complete(file: RemoteFile, part: Path, advance: Advance, stop: threading.Event) -> None:
    """Appends to an incomplete file until it has its full size, or `stop` is set."""
    part.touch()
    failures = 0
    while (start := _size(part)) != file.size and not stop.is_set():
        delay = DELAY * 2**failures
        try:
            _append(file, part, advance, stop)
            continue
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status < 500 and status not in _RETRIED:
                raise
            reason = f"the server answers {status}"
            delay = _retry_after(error.response) or delay
        except (HTTPError, _TransferError) as error:
            reason = str(error) or type(error).__name__
        failures = 1 if _size(part) - start >= PROGRESS else failures + 1
        if failures == ATTEMPTS:
            raise ConnectionError(
                f"{file.name}: {reason}, {ATTEMPTS} times in a row; {_size(part)} of {file.size} "
                "bytes are kept: run the same command again to continue"
            )
        stop.wait(min(delay, LONGEST_DELAY))


def _append(file: RemoteFile, part: Path, advance: Advance, stop: threading.Event) -> None:
    """Requests what is missing of a file, one segment at most, and appends it."""
    start = _size(part)
    if start > file.size:
        start = _restart(part, start, advance)
    end = min(file.size, start + SEGMENT)
    headers = {**file.headers, "Accept-Encoding": "identity"}
    if start or end < file.size:
        headers["Range"] = f"bytes={start}-{end - 1}"
    with _request(file.url, headers) as response:
        if response.status_code == 416:
            _restart(part, start, advance)
        hf_raise_for_status(response)
        _require_same_size(response, file.size, start)
        if start and response.status_code != 206:  # the server sends the whole file again
            start = _restart(part, start, advance)
            end = file.size
        with part.open("ab") as stream:
            # Without a size, for chunks of one would be lost where the connection ends.
            for chunk in response.iter_bytes():
                if stop.is_set():
                    return
                start += len(chunk)
                if start > end:
                    raise _TransferError("the server sends more bytes than it lists")
                stream.write(chunk)
                advance(len(chunk))
    if start < end:
        raise _TransferError("the connection was closed early")


@contextlib.contextmanager
def _request(url: str, headers: Mapping[str, str]) -> Generator[Any]:
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=dict(headers), timeout=timeout) as response:
        yield response


def _require_same_size(response: Any, size: int, start: int) -> None:
    """Checks that an answer belongs to the file that is listed, for instance not a login page."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != start or match[2] not in ("*", str(size)):
            raise _TransferError(
                f"the server sends {response.headers.get('Content-Range')} instead of bytes "
                f"{start} and on of {size}"
            )
        return
    length = response.headers.get("Content-Length", str(size))
    if "Content-Encoding" not in response.headers and length != str(size):
        raise _TransferError(f"the server sends {length[:20]} bytes instead of {size}")


def _retry_after(response: Any) -> float | None:
    """Returns the seconds that a server asks for, in the standard's header or in the Hub's."""
    seconds = re.fullmatch(r"(\d{1,6})", response.headers.get("Retry-After", ""))
    seconds = seconds or re.search(r";t=(\d{1,6})", response.headers.get("RateLimit", ""))
    return float(seconds[1]) if seconds else None


def _restart(part: Path, start: int, advance: Advance) -> int:
    with part.open("wb"):
        advance(-start)
    return 0


def _part(file: RemoteFile, folder: Path) -> Path:
    """The incomplete file: named by its content, so that another revision never continues it."""
    name = hashlib.sha256(file.name.encode()).hexdigest()[:8]  # contents may be alike
    return folder / PARTS / f"{file.digest}-{name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextlib.contextmanager
def _progress(what: str, total: int, initial: int = 0) -> Generator[Advance]:
    """Yields a function for all threads that moves a bar of bytes."""
    lock = threading.Lock()
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "disable": None, "delay": 0.5}
    with tqdm(desc=what, total=total, initial=initial, **options) as bar:

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        yield advance
