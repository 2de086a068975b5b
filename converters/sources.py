"""Where a source is: a file or folder on disk, or on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from flashmotion_jax.runtime.errors import UserError

from .folders import file_patterns

#: Suffixes of files of weights.
SUFFIXES = (".safetensors", ".sft", ".pt", ".pth", ".ckpt", ".bin", ".gguf")

_NAME = re.compile(r"(\w[\w.-]*/[\w.-]+)(?:/(.+))?")
_SECONDS = 10


def is_file(source: str) -> bool:
    """Whether a source is one file, on disk or on the Hugging Face Hub, and not a folder."""
    path = Path(source)
    if path.exists():
        return path.is_file()
    return path.suffix in SUFFIXES


def locate(source: str, kinds: Iterable[str]) -> Path:
    """Returns the path of a file or folder, downloading it if it is not on disk.

    Args:
      source: A path; or on the Hugging Face Hub `owner/name`, of which only the files of `kinds`
        are downloaded, or `owner/name/file`.
      kinds: Components that are needed.

    Raises:
      UserError: `source` is neither an existing path nor such a name.
      OSError: The download failed. Complete files are kept, and the next call continues.
    """
    path = Path(source)
    if path.exists():
        return _find_snapshot(path) if path.is_dir() else path
    match = _NAME.fullmatch(source)
    if not match or Path(path.parts[0]).exists():
        raise UserError(f"{source} does not exist; {_nearby(path)}")
    repository, file = match.groups()
    import huggingface_hub

    try:
        if file:
            return _download(repository, file)
        patterns = [pattern for kind in kinds for pattern in file_patterns(kind)]
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the hub raises its own exceptions, those of httpx, and OSError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(
            f"{source} is not on this disk and could not be downloaded ({reason}); check name and "
            "network and run the command again, or download it elsewhere and give the folder"
        ) from error


def _download(repository: str, file: str) -> Path:
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(repository, file)
    try:
        # Downloads try again for a minute; most names that are not there are paths with an error.
        huggingface_hub.HfApi().model_info(repository, timeout=_SECONDS)
    except Exception:
        if isinstance(cached, str):
            return Path(cached)
        raise
    return Path(huggingface_hub.hf_hub_download(repository, file))


def _nearby(path: Path) -> str:
    """Says what is there in place of a path that does not exist."""
    folder = next((parent for parent in path.parents if parent.is_dir()), None)
    if folder is None or folder == Path():
        return "expected a file, a folder, or owner/name on Hugging Face"
    names = sorted(child.name for child in folder.iterdir())
    listed = f"{', '.join(names[:5])}{', ...' if names[5:] else ''}" or "nothing"
    return f"expected a file or folder; {folder} has {listed:.200}"


def _find_snapshot(path: Path) -> Path:
    """Returns the newest snapshot of a repository in the cache of the hub, or the path itself.

    Raises:
      UserError: The path is the whole cache, or a repository without a complete snapshot.
    """
    repositories = sorted((*path.glob("models--*"), *path.glob("hub/models--*")))
    if repositories and not any(child.is_file() for child in path.iterdir() if child.suffix):
        names = ", ".join(folder.name for folder in repositories[:8])
        raise UserError(f"{path} is the cache of the hub; give one of the folders in it: {names}")
    if not (path / "snapshots").is_dir() or not (path / "blobs").is_dir():
        return path
    snapshots = sorted(child for child in (path / "snapshots").iterdir() if child.is_dir())
    main = path / "refs" / "main"
    commit = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    found = [child for child in snapshots if child.name == commit] or snapshots
    if len(found) != 1:
        names = ", ".join(f"snapshots/{child.name}" for child in found) or "none is there"
        raise UserError(f"{path} is a repository in the cache of the hub; give a snapshot: {names}")
    return found[0]
