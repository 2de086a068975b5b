"""Whether the bytes of a file are those that were published, where the disk says what they were.

huggingface_hub names a blob of its cache by the digest of its content, and notes the digest of what
it writes elsewhere under `.cache/huggingface`. A file of torch holds a CRC-32 of each of its parts.

Source: huggingface_hub `file_download.py`, `_local_folder.py`.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import re
import zipfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flashmotion_jax.runtime.errors import UserError

from .tensors import StateDict, Tensor

_CHUNK_BYTES = 2**22
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Of files that are not stored by Git LFS: SHA-1 of a header of git and the content.
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")


def checked(file: Path, tensors: StateDict) -> StateDict:
    """Returns the tensors of a file that is checked when the first of them is read."""
    check = functools.cache(lambda: require_intact(file))

    def read(tensor: Tensor) -> np.ndarray:
        check()
        return tensor.read()

    return {
        key: dataclasses.replace(tensor, read=functools.partial(read, tensor))
        for key, tensor in tensors.items()
    }


def require_intact(file: Path) -> None:
    """Compares a file with its digest in a cache of the hub, or with the CRCs of a zip archive.

    Files with neither pass. Shows a progress bar.

    Raises:
      UserError: The file is not what was published.
    """
    digest = _published_digest(file)
    if digest and _digest_of(file, digest) != digest:
        raise UserError(
            f"{file} is damaged: its SHA is not the {digest[:12]}... that it was downloaded as; "
            f"delete {file.resolve()} and download it again"
        )
    if not digest and zipfile.is_zipfile(file):
        _require_crcs(file)


def _published_digest(file: Path) -> str | None:
    """SHA-256 or SHA-1 of a file, as huggingface_hub noted it."""
    blob = file.resolve()
    if blob.parent.name == "blobs":
        return blob.name if _is_digest(blob.name) else None
    for folder in file.absolute().parents:
        downloads = folder / ".cache" / "huggingface" / "download"
        note = downloads / f"{file.absolute().relative_to(folder)}.metadata"
        if note.is_file():
            lines = note.read_text(errors="replace").split()
            # A file that changed later has another mtime; the library allows a second, too.
            if len(lines) == 3 and _is_digest(lines[1]) and _is_after(lines[2], file):
                return lines[1]
            return None
    return None


def _is_digest(text: str) -> bool:
    return bool(_SHA256.fullmatch(text) or _GIT_SHA1.fullmatch(text))


def _is_after(timestamp: str, file: Path) -> bool:
    try:
        return file.stat().st_mtime - 1 <= float(timestamp)
    except ValueError:
        return False


def _digest_of(file: Path, like: str) -> str:
    if _SHA256.fullmatch(like):
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream, _bar(file) as bar:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _require_crcs(file: Path) -> None:
    with zipfile.ZipFile(file) as archive, _bar(file) as bar:
        for entry in archive.infolist():
            if not _is_intact(archive, entry, bar):
                raise UserError(
                    f"{file} is damaged: the CRC of {entry.filename[:80]} in it is another; "
                    "download it again"
                )


def _is_intact(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, bar: tqdm) -> bool:
    try:
        with archive.open(entry) as stream:  # which compares the CRC at its end
            while chunk := stream.read(_CHUNK_BYTES):
                bar.update(len(chunk))
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError):
        return False
    except OSError as error:
        if error.errno != errno.EINVAL:  # a part at a negative position
            raise
        return False
    return True


def _bar(file: Path) -> tqdm:
    size = file.stat().st_size
    return tqdm(
        total=size, desc=f"checking {file.name}", unit="B", unit_scale=True, disable=None, delay=1
    )
