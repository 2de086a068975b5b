"""What a call of `flashmotion download` would do: files, sizes, and what is there already."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DiTConfig
from flashmotion_jax.converters.folders import file_patterns
from flashmotion_jax.converters.importing import require_free
from flashmotion_jax.hub.catalog import Item, Part
from flashmotion_jax.hub.repository import Address, Repository, open_repository, require_access
from flashmotion_jax.hub.transfer import RemoteFile, bytes_left
from flashmotion_jax.runtime.checksums import read_json
from flashmotion_jax.runtime.errors import UserError

#: In a checkpoint: which files of which commit each component was converted from.
SOURCES = "sources.json"

_TORCH_FILES = (".pt", ".pth", ".bin")


@dataclasses.dataclass(frozen=True)
class Step:
    """A part, and the files that it is made from.

    Attributes:
      part: What it is.
      repository: Where the files are; None for a file on another host.
      files: All of them.
      folder: Where they are downloaded to.
      cached: Where huggingface_hub has all of them, by their names.
      done: Whether the destination has the part already, made from these files.
    """

    part: Part
    repository: Repository | None
    files: Sequence[RemoteFile]
    folder: Path
    cached: Path | None = None
    done: bool = False

    @property
    def address(self) -> Address | None:
        """The address of the repository."""
        return self.repository.address if self.repository else None

    @property
    def num_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size for file in self.files)

    @property
    def num_bytes_left(self) -> int:
        """How many bytes are still to be transferred."""
        return 0 if self.done or self.cached else bytes_left(self.files, self.folder)


@dataclasses.dataclass(frozen=True)
class Disk:
    """Bytes that are needed and that are free on the disk of a folder."""

    folder: Path
    needed: int
    free: int


@dataclasses.dataclass(frozen=True)
class Download:
    """Everything that a call of `flashmotion download` does.

    Attributes:
      destination: Folder of the checkpoint, the data set or the networks.
      dtype: To store matmul and convolution weights in.
      conventions: How the generator is sampled, a name in `config.CONVENTIONS`.
      overwrite: Replace components, or files of a data set, that differ.
      keep: Keep the downloaded files of a checkpoint after their conversion.
      steps: What is downloaded and converted, in order.
    """

    destination: Path
    dtype: str
    conventions: str | None
    overwrite: bool
    keep: bool
    steps: Sequence[Step]

    def disks(self) -> list[Disk]:
        """Returns what is needed of each disk at its fullest moment; conversions are estimated."""
        folders = (downloads_folder(self.destination), self.destination)
        disks = {existing(folder).stat().st_dev: existing(folder) for folder in folders}
        held = dict.fromkeys(disks, 0)
        fullest = dict.fromkeys(disks, 0)
        for step in self.steps:
            if step.done:
                continue
            downloads = existing(step.folder).stat().st_dev
            held[downloads] += step.num_bytes_left
            held[existing(self.destination).stat().st_dev] += _converted_bytes(step, self.dtype)
            fullest = {disk: max(fullest[disk], held[disk]) for disk in disks}
            if not (self.keep or step.cached or step.part.kind == "files"):
                held[downloads] -= step.num_bytes
        return [
            Disk(folder, fullest[disk], shutil.disk_usage(folder).free)
            for disk, folder in disks.items()
        ]


def downloads_folder(destination: Path) -> Path:
    """Returns where the files of a checkpoint are kept until they are converted: beside it.

    Raises:
      UserError: The destination is the root of a file system.
    """
    destination = destination.resolve()
    if not destination.name:
        raise UserError(f"{destination} cannot be the folder of a download; choose one below it")
    return destination.with_name(f"{destination.name}.download")


def unfinished(destination: Path, kind: str) -> Path:
    """Returns the file that is there while a component is converted and not yet recorded."""
    return downloads_folder(destination) / f"{kind.replace('/', '-')}.unfinished"


def plan_download(
    item: Item,
    destination: Path,
    *,
    adapters: Sequence[str] = (),
    addresses: Mapping[str, Address] = MappingProxyType({}),
    dtype: str = "bfloat16",
    overwrite: bool = False,
    keep: bool = False,
) -> Download:
    """Lists the repositories and finds out what is to be done; changes nothing.

    Args:
      item: From the catalog.
      destination: A new folder, or one that this was downloaded to before.
      adapters: Which to include, some of `item.adapters`.
      addresses: Repositories in place of those of the catalog, by their short names.
      dtype: To store matmul and convolution weights in.
      overwrite: Replace components, or files of a data set, that differ.
      keep: Keep the downloaded files of a checkpoint after their conversion.

    Raises:
      UserError: A repository or a file cannot be had, or the destination holds something else.
      OSError: The network failed.
      ImportError: A file needs torch, which is not installed.
    """
    downloads_folder(destination)
    parts = list(item.parts)
    # The generator first: an adapter takes its sizes from it.
    parts[1:1] = [Part(f"adapters/{name}", "weights", item.adapters[name]) for name in adapters]
    is_checkpoint = any(part.kind in components.kinds() for part in parts)
    if is_checkpoint:
        require_free(destination, [], overwrite)
    sources = {**item.sources, **addresses}
    opened = {
        name: open_repository(source)
        for name, source in sources.items()
        if isinstance(source, Address) and any(part.source == name for part in parts)
    }
    steps = [_plan_step(part, sources, opened, destination, dtype) for part in parts]
    if is_checkpoint and not overwrite:
        _require_same(destination, steps)
    remaining = [step for step in steps if not step.done]
    _require_torch(remaining)
    for name, repository in opened.items():
        files = [
            step.files[0] for step in remaining if step.part.source == name and not step.cached
        ]
        if files:
            require_access(repository.address, files[0])
    return Download(destination, dtype, item.conventions, overwrite, keep, steps)


def _plan_step(
    part: Part,
    sources: Mapping[str, Address | RemoteFile],
    opened: Mapping[str, Repository],
    destination: Path,
    dtype: str,
) -> Step:
    source = sources[part.source]
    if isinstance(source, RemoteFile):
        step = Step(part, None, [source], downloads_folder(destination) / part.source)
        return dataclasses.replace(step, done=_is_network_there(part, destination))
    repository = opened[part.source]
    if part.kind == "files":
        return Step(part, repository, repository.select(["*"]), destination)
    files = repository.select([part.file] if part.file else file_patterns(part.kind))
    folder = downloads_folder(destination) / repository.address.name.replace("/", "--")
    cached = [repository.cached(file) for file in files]
    step = Step(
        part,
        repository,
        files,
        folder,
        cached=_common_folder(files, [path for path in cached if path]),
    )
    if part.kind not in components.kinds():
        return dataclasses.replace(step, done=_is_network_there(part, destination))
    known = recorded(destination).get(part.kind)
    return dataclasses.replace(step, done=bool(known) and known == record(step, destination, dtype))


def record(step: Step, destination: Path, dtype: str) -> dict[str, Any] | None:
    """Returns what a component is made from, and its digest; None if it is not there.

    The commit is no part of it: a new one may leave the files as they are.
    """
    if not (destination / step.part.kind).is_dir():
        return None
    return {
        "repository": step.address.name if step.address else "",
        "files": {file.name: file.digest for file in step.files},
        "dtype": dtype,
        "key": components.read_component(destination, step.part.kind).key,
    }


def recorded(destination: Path) -> dict[str, Any]:
    """Reads what the components of a checkpoint were made from; empty for a new one."""
    file = destination / SOURCES
    return read_json(file) if file.is_file() else {}


def _require_same(destination: Path, steps: Sequence[Step]) -> None:
    """Checks that components which are there are those that the plan would make."""
    others = [
        step.part.kind
        for step in steps
        if not step.done
        and (destination / step.part.kind).is_dir()
        and not unfinished(destination, step.part.kind).exists()
    ]
    if others:
        raise UserError(
            f"{destination} has {', '.join(others)} from other files, of another revision, or in "
            "another dtype; add --overwrite to replace them, or choose another folder"
        )


def _is_network_there(part: Part, destination: Path) -> bool:
    return any(destination.glob(f"{part.kind}-*.npz"))


def _require_torch(steps: Sequence[Step]) -> None:
    files = [file.name for step in steps for file in step.files if step.part.kind != "files"]
    for name in files:
        if name.endswith(_TORCH_FILES) and importlib.util.find_spec("torch") is None:
            raise ImportError(
                f'{name} needs torch to be read; pip install "flashmotion_jax[convert]"'
            )


def _common_folder(files: Sequence[RemoteFile], paths: Sequence[str]) -> Path | None:
    """Returns the folder in which all files have their names; None if one is not there."""
    if len(paths) < len(files):
        return None
    folder = Path(paths[0]).parents[files[0].name.count("/")]
    return folder if all((folder / file.name).is_file() for file in files) else None


def _converted_bytes(step: Step, dtype: str) -> int:
    """Returns about how large a part becomes: as published, but in proportion to its files."""
    kind = step.part.kind
    if kind == "files":
        return 0
    # At most an 8-bit file that becomes bfloat16 or float32.
    limit = step.num_bytes * (2 if dtype == "bfloat16" else 4)
    if kind not in components.kinds():
        return limit
    dit_config = DiTConfig() if kind.startswith("adapters/") else None
    config = components.component_classes(kind)[0]()
    module = components.abstract_module(kind, config, dtype, dit_config)
    values = [variable.get_value() for variable in components.flat_parameters(module).values()]
    return min(limit, sum(value.size * value.dtype.itemsize for value in values))


def existing(folder: Path) -> Path:
    """Returns a folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
