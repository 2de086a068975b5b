"""What a file is, from its first bytes: what was downloaded is often not what its name says.

Clones without Git LFS hold pointers, failed downloads hold web pages, and unfinished ones zeros.
Readers that expect one format ask `require_format`, whose errors say what else a file is.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flashmotion_jax.runtime.errors import UserError

#: Bytes that are looked at; the mark of a tar archive is at byte 257.
NUM_BYTES = 4096

#: Bytes of the header of safetensors, which that library allows.
MAX_HEADER = 100_000_000

_AGAIN = "download it again"
_UNPACK = "unpack it and give what it contains"
_WEIGHTS = "give a .safetensors, .pt or .pth file of the same weights"
_POINTER = "run `git lfs pull` in its repository, or download it again from its page"
_ADDRESS = "download it again from its direct address, signed in if the author asks for it"
_OTHER = "give the file that was meant"


@dataclass(frozen=True)
class FileFormat:
    """The format of a file.

    Attributes:
      name: A short name, such as "safetensors", "torch", "gguf" or "html".
      description: What follows "the file is" in a message.
      advice: What to do if something else was expected.
    """

    name: str
    description: str
    advice: str


EMPTY = FileFormat("empty", "empty", _AGAIN)
SAFETENSORS = FileFormat("safetensors", "a file of safetensors", _OTHER)
TORCH = FileFormat("torch", "a file of torch", "give it a name that ends in .pt")
PICKLE = FileFormat("pickle", "a Python pickle", _OTHER)
GGUF = FileFormat("gguf", "GGUF, the quantized weights of llama.cpp and ComfyUI-GGUF", _WEIGHTS)

#: Where its mark begins, the mark, and the format.
_MARKS = (
    (0, b"GGUF", GGUF),
    (0, b"lmgg", FileFormat("ggml", "GGML, a predecessor of GGUF", _WEIGHTS)),
    (0, b"fmgg", FileFormat("ggml", "GGML, a predecessor of GGUF", _WEIGHTS)),
    (0, b"tjgg", FileFormat("ggml", "GGML, a predecessor of GGUF", _WEIGHTS)),
    (0, b"\x89HDF\r\n\x1a\n", FileFormat("hdf5", "HDF5, as of Keras", _WEIGHTS)),
    (4, b"TFL3", FileFormat("tflite", "a TensorFlow Lite model", _WEIGHTS)),
    (0, b"\x93NUMPY", FileFormat("npy", "a NumPy array", _OTHER)),
    (0, b"%PDF-", FileFormat("pdf", "a PDF document", _OTHER)),
    (0, b"\x89PNG\r\n\x1a\n", FileFormat("png", "a PNG image", _OTHER)),
    (0, b"\xff\xd8\xff", FileFormat("jpeg", "a JPEG image", _OTHER)),
    (0, b"GIF8", FileFormat("gif", "a GIF image", _OTHER)),
    (8, b"WEBP", FileFormat("webp", "a WebP image", _OTHER)),
    (4, b"ftyp", FileFormat("mp4", "a video or image of the MP4 family", _OTHER)),
    (0, b"\x1aE\xdf\xa3", FileFormat("matroska", "a Matroska or WebM video", _OTHER)),
    (0, b"SQLite format 3\0", FileFormat("sqlite", "an SQLite database", _OTHER)),
    (0, b"\x7fELF", FileFormat("program", "a program", _OTHER)),
    (0, b"MZ", FileFormat("program", "a program", _OTHER)),
    (257, b"ustar", FileFormat("tar", "a tar archive", _UNPACK)),
    (0, b"\x1f\x8b", FileFormat("gzip", "compressed with gzip", _UNPACK)),
    (0, b"\xfd7zXZ\0", FileFormat("xz", "compressed with xz", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", FileFormat("zstd", "compressed with zstd", _UNPACK)),
    (0, b"BZh", FileFormat("bzip2", "compressed with bzip2", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", FileFormat("7z", "a 7z archive", _UNPACK)),
    (0, b"Rar!\x1a\x07", FileFormat("rar", "a RAR archive", _UNPACK)),
)

#: Texts, as patterns of their first bytes without white space.
_TEXTS = (
    (
        re.compile(rb"version https?://(git-lfs\.github\.com|git-media\.io|hawser\.github\.com)/"),
        FileFormat("pointer", "a Git LFS pointer", _POINTER),
    ),
    (re.compile(rb"# xet version"), FileFormat("pointer", "a Xet pointer", _POINTER)),
    (
        re.compile(rb"[./]*(\.git)?/?annex/objects/"),
        FileFormat("pointer", "a git-annex pointer", "run `git annex get` in its repository"),
    ),
    (
        re.compile(rb"<(!doctype html|html|head|body|!--|script)", re.IGNORECASE),
        FileFormat("html", "a web page (HTML)", _ADDRESS),
    ),
    (re.compile(rb"<"), FileFormat("xml", "XML, as errors of servers are", _ADDRESS)),
    (re.compile(rb"[\[{]"), FileFormat("json", "JSON", "give the file of the weights instead")),
)


def require_format(file: Path, names: Sequence[str], what: str) -> str:
    """Returns the format of a file, which must be one of some.

    Args:
      file: An existing file.
      names: Names of formats.
      what: What is expected, in the message.

    Raises:
      UserError: The file is in another format; the message says which, and what to do.
    """
    found = recognize_format(file)
    if found.name in names:
        return found.name
    raise UserError(f"{file} is {found.description}, not {what}: {found.advice}")


def recognize_format(file: Path) -> FileFormat:
    """Recognizes a file by its first bytes, and a zip archive by the names that it contains."""
    with file.open("rb") as stream:
        start = stream.read(NUM_BYTES)
    size = file.stat().st_size
    if not start:
        return EMPTY
    if start.startswith(b"PK"):
        return _recognize_zip(file)
    if 2 <= int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:9] == b"{":
        return SAFETENSORS
    for position, mark, known in _MARKS:
        if start.startswith(mark, position):
            return known
    if start[0] == 0x80 and start[1:2] in b"\2\3\4\5":
        return PICKLE
    if not any(start):
        zeros = f"zeros in its first {len(start):,} bytes"
        return FileFormat("zeros", f"unfinished ({zeros})", _AGAIN)
    return _recognize_text(start) or FileFormat(
        "unknown", f"of no known format ({size:,} bytes, {start[:8].hex(' ')} ...)", _AGAIN
    )


def _recognize_zip(file: Path) -> FileFormat:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        # The list of contents is at the end.
        return FileFormat("zip", "truncated (the end of its zip archive is missing)", _AGAIN)
    if any(name.endswith("constants.pkl") for name in names):
        return FileFormat("torchscript", "TorchScript, which is a program", _WEIGHTS)
    if any(name.endswith("data.pkl") for name in names):
        return TORCH
    if names and all(name.endswith(".npy") for name in names):
        return FileFormat("npz", "a NumPy archive (npz)", _OTHER)
    listed = f"{', '.join(names[:2])[:80]}{', ...' if names[2:] else ''}"
    return FileFormat("zip", f"a zip archive of {listed or 'nothing'}", _UNPACK)


def _recognize_text(start: bytes) -> FileFormat | None:
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    # A character may be cut by the end of the bytes.
    text = start.decode(encoding, errors="replace").rstrip("\ufffd").strip()
    for pattern, known in _TEXTS:
        if pattern.match(text.encode()):
            return known
    if text and all(character.isprintable() or character.isspace() for character in text):
        return FileFormat("text", f"text that begins {text[:60]!r}", _AGAIN)
    return None
