"""Multipart forms: fields as text, files in a temporary folder."""

from __future__ import annotations

import errno
import math
import reprlib
import shutil
import zlib
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request

from flashmotion_jax.runtime.errors import UserError

#: Bytes of a field that is not a file, such as a trajectory with masks.
_MAX_FIELD = 32 * 2**20
_MAX_FILES = 4000
#: Bytes that a zip may unpack to.
_MAX_UNPACKED = 2**30


@dataclass(frozen=True)
class Form:
    """A form.

    Attributes:
      folder: Holds its files under their own names.
      fields: Name -> text.
      files: (name of the field, path of the file) in the order of the form.
    """

    folder: Path
    fields: dict[str, str]
    files: list[tuple[str, Path]]

    def file(self, field: str) -> Path | None:
        """The first file of a field, or None."""
        return next((path for name, path in self.files if name == field), None)


@asynccontextmanager
async def received(request: Request) -> AsyncGenerator[Form, None]:
    """Yields the form of a request and deletes its files afterwards.

    Raises:
      UserError: The request is not a multipart form, a file name leaves the folder, or the block
        raised it; the temporary folder is removed from the paths in its message.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UserError("expected a form as multipart/form-data, see /openapi.json")
    limits = {"max_files": _MAX_FILES, "max_fields": 100, "max_part_size": _MAX_FIELD}
    with TemporaryDirectory(prefix="flashmotion-") as scratch:
        form = Form(Path(scratch), {}, [])
        try:
            async with request.form(**limits) as data:
                for name, value in data.multi_items():
                    if isinstance(value, UploadFile):
                        path = inside(form.folder, value.filename or "unnamed")
                        await run_in_threadpool(_copy, value, path)
                        form.files.append((name, path))
                    else:
                        form.fields[name] = _checked_text(name, value)
            yield form
        except UserError as error:
            raise UserError(str(error).replace(f"{scratch}/", "")) from error


def inside(folder: Path, name: str) -> Path:
    """Joins a folder and an untrusted name.

    Raises:
      UserError: The path would leave the folder.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or any(part in ("..", "/") or ":" in part or "\0" in part for part in parts):
        raise UserError(f"the file name {name!r} leaves its folder: rename the file")
    return folder.joinpath(*parts)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip.

    Raises:
      UserError: The zip is damaged or too large, or a name in it leaves the folder.
    """
    _check_entries(archive)
    try:
        with ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > _MAX_UNPACKED:
                raise UserError(f"{archive.name} unpacks to more than 1 GB: use fewer files")
            for member in members:
                path = inside(folder, member.filename)
                with file.open(member) as source, _target(path) as target:
                    shutil.copyfileobj(source, target)
    except UserError:
        raise
    except (BadZipFile, OSError, RuntimeError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{archive.name} is not a readable zip: {str(error)[:200]}") from error


def _copy(source: UploadFile, path: Path) -> None:
    with _target(path) as target:
        shutil.copyfileobj(source.file, target)


def _check_entries(archive: Path) -> None:
    """Counts the files of a zip before its table of them is read, which takes 1 kB for each."""
    if not archive.stat().st_size:
        return
    with archive.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        count, place = 0, -1
        while (place := content.find(b"PK\x01\x02", place + 1)) >= 0:
            count += 1
            if count > _MAX_FILES:
                raise UserError(f"{archive.name} holds more than {_MAX_FILES} files: use fewer")


@contextmanager
def _target(path: Path) -> Generator[BinaryIO]:
    """Opens an untrusted path for writing.

    Raises:
      UserError: Its name is too long, or another file has the name of one of its folders.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("wb")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"a file cannot be called {reprlib.repr(path.name)} beside the others: rename it"
        ) from error
    with opened:
        yield opened


def whole(fields: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Parses a field as a whole number from 1 to 999999.

    Raises:
      UserError: It is none, or is missing and has no default.
    """
    text = fields.get(name, "")
    if text == "" and default is not None:
        return default
    if not text.isdecimal() or len(text) > 6 or int(text) < 1:
        raise UserError(f"{name}={text!r:.40}; expected a whole number from 1 to 999999")
    return int(text)


def number(fields: Mapping[str, str], name: str, default: float) -> float:
    """Parses a field as a finite number.

    Raises:
      UserError: It is none.
    """
    text = fields.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{name}={text!r:.40}; expected a number")
    return value


def _checked_text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name:.40} is not text in Unicode; send it as UTF-8") from None
    return value
