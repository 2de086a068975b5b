"""Named arrays on disk as one Orbax tree: the `params` folders of a checkpoint.

Arrays are written a few at a time, and read directly to their dtype and sharding, so that neither
needs memory for two models.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import gc
import hashlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from flashmotion_jax.runtime.errors import UserError, is_resource_exhausted
from flashmotion_jax.runtime.finite import find_not_finite

#: Bytes of a chunk of an array on disk, which is buffered in addition to the array.
CHUNK_BYTES = 64 * 2**20

#: Bytes of the arrays that are read or written together. Arrays written together share files; on
#: its own, each small array would take a file and 8 kB more.
READ_BYTES = 2**30
WRITE_BYTES = 2**26

#: Bytes of arrays whose copies, in Orbax's garbage, are worth the time of a collection.
GARBAGE_BYTES = 2**26

Readers = Mapping[str, Callable[[], np.ndarray]]
"""Name -> function that returns the array, called just before it is written."""


@dataclasses.dataclass(frozen=True)
class Written:
    """Facts about a written folder.

    Attributes:
      num_bytes: Size on disk, for `read_arrays`.
      digest: sha256 of all names, dtypes and values, which identifies the arrays.
    """

    num_bytes: int
    digest: str


def write_arrays(
    folder: Path,
    readers: Readers,
    expected: Mapping[str, jax.ShapeDtypeStruct],
    compress: bool = False,
) -> Written:
    """Writes arrays, with one large array or `WRITE_BYTES` of small ones in memory at a time.

    Args:
      folder: Folder to create.
      readers: Name -> function that returns the array.
      expected: Name -> the shape that the array must have, and the dtype to store it in.
      compress: Compress with zstd: bfloat16 weights become 22 % smaller (float32: 8 %), and writing
        takes two to three times as long.

    Raises:
      UserError: The names or a shape differ.
      OSError: The disk is full.
    """
    _require_same(readers.keys(), expected.keys(), "the arrays given")
    require_space(folder, sum(map(_num_array_bytes, expected.values())))
    digests: dict[str, str] = {}
    arrays = {
        name: _LazyArray(name, read, expected[name], digests) for name, read in readers.items()
    }
    registry = ocp.type_handlers.create_type_handler_registry(
        (_LazyArray, _LazyArrayHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    # This process writes alone: Orbax must not wait for the others.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.PyTreeCheckpointHandler(
        type_handler_registry=registry, use_compression=compress, multiprocessing_options=alone
    )
    save_args = {name: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES) for name in arrays}
    args = ocp.args.PyTreeSave(arrays, save_args=save_args)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            checkpointer.save(folder.absolute(), args=args)
    except ValueError as error:
        if is_resource_exhausted(error):
            raise OSError(errno.ENOSPC, "the disk is full", str(folder)) from error
        raise
    # Orbax records the path of this machine here, which does not belong in a checkpoint.
    (folder / "commit_success.txt").unlink(missing_ok=True)
    return Written(_num_bytes(folder), _digest_all(digests))


def read_arrays(
    folder: Path,
    num_bytes: int,
    expected: Mapping[str, jax.ShapeDtypeStruct],
    places: Mapping[str, Sharding],
) -> dict[str, jax.Array]:
    """Reads all arrays of a folder.

    Args:
      folder: Folder made by `write_arrays`.
      num_bytes: As returned by `write_arrays`.
      expected: Name -> shape, and the dtype to read the array as.
      places: Name -> sharding.

    Returns:
      Name -> array.

    Raises:
      UserError: The folder is incomplete or damaged, holds other names or shapes, or NaN or
        infinity.
    """
    require_complete(folder, num_bytes)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        try:
            stored = checkpointer.metadata(folder.absolute()).item_metadata.tree
        except Exception as error:
            raise _damaged(folder, error) from error
        _require_same(stored.keys(), expected.keys(), f"the arrays in {folder}")
        for name, array in expected.items():
            _require_shape(tuple(stored[name].shape), array.shape, f"{name} in {folder}")
        arrays: dict[str, jax.Array] = {}
        # Orbax holds a second copy of everything it reads in one call.
        sizes = {name: _num_array_bytes(array) for name, array in expected.items()}
        for names in _groups(sizes, READ_BYTES):
            args = ocp.args.PyTreeRestore(
                {name: expected[name] for name in names},
                restore_args={
                    name: ocp.ArrayRestoreArgs(dtype=expected[name].dtype, sharding=places[name])
                    for name in names
                },
                partial_restore=True,
            )
            try:
                arrays |= jax.block_until_ready(checkpointer.restore(folder.absolute(), args=args))
            except Exception as error:
                raise _damaged(folder, error) from error
            if sum(sizes[name] for name in names) >= GARBAGE_BYTES:
                gc.collect()
    require_finite_arrays(folder, arrays)
    return arrays


def require_finite_arrays(folder: Path, arrays: Mapping[str, jax.Array]) -> None:
    """Checks the arrays that were read from a folder.

    Raises:
      UserError: They hold NaN or infinity.
    """
    if invalid := find_not_finite(arrays):
        more = f" and {len(invalid) - 1} more" if invalid[1:] else ""
        raise UserError(
            f"{folder.parent} holds NaN or infinity in {invalid[0]}{more}; convert or "
            "train it again"
        )


def digest_arrays(folder: Path, names: Iterable[str]) -> str:
    """Computes `Written.digest` of arrays on disk, one at a time.

    Raises:
      UserError: an array is missing or cannot be read.
    """
    return _digest_all({name: _describe(read_array(folder, name)) for name in names})


def require_complete(folder: Path, num_bytes: int) -> None:
    """Checks for missing and truncated files, for which Orbax prints tracebacks of its threads.

    Raises:
      UserError: The folder does not have the `num_bytes` that `write_arrays` returned.
    """
    if (found := _num_bytes(folder)) != num_bytes:
        raise UserError(
            f"{folder} holds {found:,} of {num_bytes:,} bytes; copy or convert it again"
        )


def read_array(folder: Path, name: str) -> np.ndarray:
    """Reads one array of a folder into host memory, in its stored dtype.

    Raises:
      UserError: The folder is damaged.
    """
    args = ocp.args.PyTreeRestore(
        {name: 0},
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray)},
        partial_restore=True,
    )
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            array = checkpointer.restore(folder.absolute(), args=args)[name]
    except Exception as error:
        raise _damaged(folder, error) from error
    if not isinstance(array, np.ndarray):  # Orbax returns the placeholder for a name it lacks
        raise UserError(f"{folder} holds no array {name}; copy or convert it again")
    return array


@dataclasses.dataclass(frozen=True)
class _LazyArray:
    """An array that is in memory only while it is written."""

    name: str
    read: Callable[[], np.ndarray]
    expected: jax.ShapeDtypeStruct
    digests: dict[str, str]

    def materialize(self) -> np.ndarray:
        array = self.read()
        _require_shape(array.shape, self.expected.shape, self.name)
        array = np.ascontiguousarray(array, self.expected.dtype)
        self.digests[self.name] = _describe(array)
        return array


class _LazyArrayHandler(ocp.type_handlers.NumpyHandler):
    """Writes arrays group by group; Orbax reads them back as plain arrays."""

    async def serialize(  # pyrefly: ignore[bad-override]
        self,
        values: Sequence[_LazyArray],
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.SaveArgs] | None = None,
    ) -> Sequence[ocp.future.Future]:
        parts = {
            value.name: (value, info, arg)
            for value, info, arg in zip(values, infos, args or [], strict=True)
        }
        sizes = {name: _num_array_bytes(value.expected) for name, (value, _, _) in parts.items()}
        for names in _groups(sizes, WRITE_BYTES):
            some, some_infos, some_args = zip(*(parts[name] for name in names), strict=True)
            arrays = [value.materialize() for value in some]
            for written in await super().serialize(arrays, some_infos, some_args):
                await asyncio.to_thread(written.result)
            del arrays
        return []


def _describe(array: np.ndarray) -> str:
    """Dtype, shape and digest of the values of a contiguous array."""
    return f"{array.dtype} {array.shape} {_digest(array.reshape(-1).view(np.uint8))}"


def _digest_all(digests: Mapping[str, str]) -> str:
    return _digest(str(sorted(digests.items())).encode())


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _num_array_bytes(array: jax.ShapeDtypeStruct) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _groups(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Groups of names with at most `limit` bytes together; a larger one is a group of its own."""
    group: list[str] = []
    for name, size in sizes.items():
        if group and sum(sizes[member] for member in group) + size > limit:
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def _num_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def require_space(folder: Path, num_bytes: int) -> None:
    """Checks for free space in advance: on a full disk, Orbax prints tracebacks of its threads.

    Raises:
      OSError: The disk of the folder, which need not exist, has less than `num_bytes` free.
    """
    parent = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(parent).free
    if free < num_bytes:
        raise OSError(errno.ENOSPC, f"{num_bytes:,} bytes needed, {free:,} free on the disk")


def _damaged(folder: Path, error: Exception) -> UserError:
    # Orbax and tensorstore raise exceptions of every kind, even bare Exception.
    return UserError(f"{folder} is damaged ({type(error).__name__}); copy or convert it again")


def _require_same(found: Any, expected: Any, what: str) -> None:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise UserError(
            f"{what} do not fit the configuration: missing {_first(missing)}; "
            f"unknown {_first(unknown)}"
        )


def _first(names: list[str], count: int = 3) -> str:
    """Returns the first of several names, and how many follow."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return (", ".join(names[:count]) or "none") + more


def _require_shape(found: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    if found != expected:
        raise UserError(f"{what} has shape {found}; the configuration asks for {expected}")
