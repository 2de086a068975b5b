"""Downloads what `hub.catalog` lists, converts it, and remembers what it was made from.

The parts of a checkpoint are downloaded and converted one after another, and what was downloaded
is removed when it is converted: the disk needs room for the checkpoint and one part.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from flashmotion_jax.checkpoints import components
from flashmotion_jax.converters.importing import convert_file, convert_wan22
from flashmotion_jax.evaluation.features.conversion import convert_metrics
from flashmotion_jax.hub.plan import (
    SOURCES,
    Download,
    Step,
    downloads_folder,
    existing,
    record,
    recorded,
    unfinished,
)
from flashmotion_jax.hub.repository import explained
from flashmotion_jax.hub.transfer import RemoteFile, discard_parts, download_files, find_complete
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.checksums import write_json
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.lock import sole_writer
from flashmotion_jax.runtime.progress import Status

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".7z", ".rar")


def run_download(download: Download, status: Status) -> str:
    """Downloads and converts what a plan lists. What is complete stays, whatever happens.

    Args:
      download: From `plan_download`.
      status: Told what is being done.

    Returns:
      A line that says what was written.

    Raises:
      UserError: A file of a data set was changed, or a file cannot be converted.
      OSError: The network failed or the disk is full; the next call continues.
    """
    remaining = [step for step in download.steps if not step.done]
    if not remaining:
        return f"{download.destination} is complete; nothing was changed"
    if remaining[0].part.kind == "files":
        return _run_files(remaining[0], download)
    folder = downloads_folder(download.destination)
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder):
        for step in {step.folder: step for step in remaining}.values():
            wanted = [file for s in remaining if s.folder == step.folder for file in s.files]
            discard_parts(wanted, step.folder)
        for step in remaining:
            _run_step(step, download, status)
    with contextlib.suppress(OSError):  # with files that are kept
        folder.rmdir()
    made = ", ".join(step.part.kind for step in remaining)
    return f"wrote {made} to {download.destination}"


def _run_files(step: Step, download: Download) -> str:
    """A data set: its files are put where they stay, and are never replaced unasked."""
    folder = download.destination
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder), _room(folder):
        complete = {file.name for file in find_complete(step.files, folder)}
        differ = [
            file.name
            for file in step.files
            if file.name not in complete and os.path.lexists(folder / file.name)
        ]
        if differ and not download.overwrite:
            raise UserError(
                f"{len(differ)} files of {folder} are not those of the repository, such as "
                f"{differ[0]}; add --overwrite to replace them, or choose another folder"
            )
        discard_parts(step.files, folder)
        missing = [file for file in step.files if file.name not in complete]
        with explained(step.address):
            download_files(missing, folder)
        discard_parts([], folder)
    if not missing:
        return f"{folder} is complete: {len(step.files)} files; nothing was changed"
    archives = [file.name for file in step.files if file.name.lower().endswith(_ARCHIVES)]
    unpack = f"; unpack {', '.join(archives[:5])} there" if archives else ""
    more = f" and {len(archives) - 5} more archives" if archives[5:] else ""
    return f"wrote {len(missing)} of {len(step.files)} files to {folder}{unpack}{more}"


def _run_step(step: Step, download: Download, status: Status) -> None:
    folder = _fetch(step, status)
    status(f"converting {step.part.kind}")
    try:
        with _room(download.destination):
            _convert(step, folder, download)
    except UserError:
        unfinished(download.destination, step.part.kind).unlink(missing_ok=True)
        status(f"{step.part.kind} cannot be converted; its files are kept in {folder}")
        raise
    if folder == step.folder and not download.keep:
        _remove(step.files, folder)


def _fetch(step: Step, status: Status) -> Path:
    """Returns the folder with the verified files of a step, downloading what is missing."""
    if step.cached and len(find_complete(step.files, step.cached)) == len(step.files):
        return step.cached
    source = step.address.name if step.address else step.files[0].url
    status(f"downloading {step.part.kind} from {source}")
    with explained(step.address), _room(step.folder):
        download_files(step.files, step.folder)
    return step.folder


def _convert(step: Step, folder: Path, download: Download) -> None:
    destination, kind = download.destination, step.part.kind
    if kind not in components.kinds():
        convert_metrics(str(folder / step.files[0].name), destination)
        return
    mark = unfinished(destination, kind)
    options: dict[str, Any] = {
        "dtype": download.dtype,
        "overwrite": download.overwrite or mark.exists(),
        "conventions": download.conventions,
    }
    mark.touch()
    if step.part.file:
        convert_file(str(folder / step.part.file), destination, **options)
    else:
        convert_wan22(str(folder), destination, kinds=[kind], **options)
    if not (destination / kind).is_dir():
        raise UserError(
            f"{folder / step.files[0].name} holds another component than {kind}; see "
            "`flashmotion convert inspect`"
        )
    known = {**recorded(destination), kind: record(step, destination, download.dtype)}
    with replacing(destination / SOURCES) as scratch:
        write_json(scratch, known)
    mark.unlink()


@contextlib.contextmanager
def _room(folder: Path) -> Generator[None]:
    """Says of a full disk how to continue."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(existing(folder)).free / 1e9
        raise OSError(
            f"the disk of {folder} is full ({error.strerror}; {free:.1f} GB free); free some space "
            "and run the same command again: it continues where it stopped"
        ) from error


def _remove(files: Sequence[RemoteFile], folder: Path) -> None:
    for file in files:
        (folder / file.name).unlink(missing_ok=True)
    folders = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for path in (*folders, folder):
        with contextlib.suppress(OSError):  # not empty
            path.rmdir()
