"""Batches for training: shuffled, the same whatever machines read them, and resumed at any step.

Batch n is a function of the seed and n alone: each epoch is a permutation of the cache that is
computed, not drawn one after the other, and each process reads its rows of the global batch. Epochs
follow each other without a gap, so a batch may hold the end of one and the beginning of the next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from flashmotion_jax.config import CachedMapKind
from flashmotion_jax.data.latent_cache import LatentCache, pad_text
from flashmotion_jax.data.records import Record
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import BATCH

Array = TypeVar("Array", jax.Array, np.ndarray)
Item = TypeVar("Item")


class Batch(NamedTuple, Generic[Array]):
    """B videos of the cache.

    Attributes:
      latents: of the videos, float32 `[B, T, h, w, C]`; frame 0 is the latent of the first image.
      trajectory: of the mask or box maps, likewise; frame 0 is that of the masks.
      text: embeddings of the captions, float32 `[B, S, D]`, zero past each caption's tokens.
    """

    latents: Array
    trajectory: Array
    text: Array


class Batches(Generic[Item]):
    """An endless iterator over batches; threads read ahead.

    Args:
      source: what to read, by index.
      example: a record as arrays, a batch without its first dimension.
      fingerprint: names the content of the source.
      batch_size: B, over all processes.
      seed: of the order.
      mesh: over whose batch axes the videos are split.
      num_threads: batches that are read ahead, each by a thread of its own.
      process_index: which of `process_count` equal pieces of a batch this process reads.
      process_count: pieces; by default the mesh decides which rows this process needs.

    Raises:
      UserError: the batch cannot be split as the mesh is.
    """

    def __init__(
        self,
        source: Any,
        example: Callable[[Any], Any],
        *,
        fingerprint: str,
        batch_size: int,
        seed: int,
        mesh: Mesh,
        num_threads: int = 4,
        process_index: int | None = None,
        process_count: int | None = None,
    ):
        self._sharding = NamedSharding(mesh, BATCH)
        _check_divides(batch_size, mesh.shape["data"] * mesh.shape["fsdp"], "batch devices")
        if process_index is None or process_count is None:
            process_index, process_count = _own_piece(self._sharding, batch_size)
        _check_divides(batch_size, process_count, "processes")
        # Adjacent seeds must not share epochs: grain adds the epoch to the seed.
        shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        dataset = (
            grain.MapDataset.source(source)
            .shuffle(seed=shuffle_seed)
            .repeat()
            .map(example)
            .batch(batch_size // process_count, drop_remainder=True)
        )[process_index::process_count]
        options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
        self._iterator = iter(dataset.to_iter_dataset(options))
        self._identity = {"cache": fingerprint, "batch_size": batch_size, "seed": seed}

    def __iter__(self) -> Batches[Item]:
        return self

    def __next__(self) -> Item:
        """The next batch, its first dimension split over the mesh."""
        return jax.tree.map(
            functools.partial(jax.make_array_from_process_local_data, self._sharding),
            next(self._iterator),
        )

    def get_state(self) -> dict[str, Any]:
        """Where the iterator is, in JSON types."""
        return {**self._identity, "step": self._iterator.get_state()["next_index"]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was called, or to any step; nothing in between is read.

        Args:
          state: from `get_state`, perhaps of a run with another number of processes.

        Raises:
          UserError: it is of another cache, batch size or seed: the batches would differ.
        """
        differing = [
            f"{name}={state.get(name)!r} (here {value!r})"
            for name, value in self._identity.items()
            if state.get(name) != value
        ]
        if differing or not isinstance(state.get("step"), int):
            raise UserError(
                f"the state is of other batches: {', '.join(differing) or 'it has no step'}; "
                "resume with the cache, batch size and seed of the run, or start a new one"
            )
        self._iterator.set_state({"next_index": state["step"]})

    def close(self) -> None:
        """Ends the threads; nothing can be read afterwards."""
        self._iterator.close()


def latent_batches(
    cache: LatentCache, *, map_kind: CachedMapKind, text_len: int, batch_size: int, **options: Any
) -> Batches[Batch[jax.Array]]:
    """Batches of a latent cache.

    Args:
      cache: what to read.
      map_kind: which trajectory maps, "mask" or "box".
      text_len: S; captions are padded to it.
      batch_size: B, over all processes.
      **options: see `Batches`.

    Raises:
      UserError: the batch is larger than the cache, or cannot be split as the mesh is; `text_len`
        is shorter than the captions may be.
    """
    _check_cache(cache, map_kind, batch_size, text_len, "batch_size")
    example = functools.partial(_example, map_kind=map_kind, text_len=text_len)
    options |= {"fingerprint": cache.fingerprint, "batch_size": batch_size}
    return Batches(cache, example, **options)


def first_records(
    cache: LatentCache, count: int, map_kind: CachedMapKind, text_len: int
) -> Batch[np.ndarray]:
    """The first videos of a cache, on the host: what sample videos are made of.

    Args:
      cache: what to read.
      count: B.
      map_kind: which trajectory maps, "mask" or "box".
      text_len: S.

    Raises:
      UserError: the cache holds fewer videos, or `text_len` is shorter than captions may be.
    """
    _check_cache(cache, map_kind, count, text_len, "count")
    examples = [_example(cache[index], map_kind, text_len) for index in range(count)]
    return Batch(*(np.stack(arrays) for arrays in zip(*examples, strict=True)))


def _example(record: Record, map_kind: CachedMapKind, text_len: int) -> Batch[np.ndarray]:
    """A record as a batch without its first dimension."""
    trajectory = record.masks if map_kind == "mask" else record.boxes
    return Batch(
        record.latents.astype(np.float32),
        trajectory.astype(np.float32),
        pad_text(record.text, text_len),
    )


def _own_piece(sharding: NamedSharding, batch_size: int) -> tuple[int, int]:
    """Which of how many pieces of a batch lies on the devices of this process.

    Processes that share videos, because the mesh splits these further, get the same piece. The rows
    of a process need not be neighbours, and on a TPU's torus are not.
    """
    rows: dict[int, set[int]] = {}
    for device, index in sharding.devices_indices_map((batch_size,)).items():
        rows.setdefault(device.process_index, set()).update(range(batch_size)[index[0]])
    pieces = sorted({tuple(sorted(own)) for own in rows.values()})
    own = tuple(sorted(rows.get(jax.process_index(), ())))
    sizes = {len(piece) for piece in pieces}
    if not own or len(sizes) > 1 or sum(map(len, pieces)) != batch_size:
        raise UserError(
            f"this process has the videos {own} of a batch of {batch_size}, and all processes "
            f"{pieces}: no equal pieces; let the mesh have all devices, and mesh.data x mesh.fsdp "
            "be a multiple of the processes, or divide them"
        )
    return pieces.index(own), len(pieces)


def _check_cache(cache: LatentCache, map_kind: str, size: int, text_len: int, name: str) -> None:
    if map_kind not in ("mask", "box"):
        raise UserError(f"map_kind={map_kind!r}; expected 'mask' or 'box'")
    if not 1 <= size <= len(cache):
        raise UserError(
            f"{name}={size}; expected 1 to {len(cache)}, the videos in {cache.path}: lower it, or "
            "cache more videos"
        )
    if text_len < cache.settings.text_len:
        raise UserError(
            f"text_len={text_len}, but captions in {cache.path} have up to "
            f"{cache.settings.text_len} tokens; use the text_len of the model it was made with"
        )


def _check_divides(batch_size: int, parts: int, name: str) -> None:
    if batch_size % parts:
        raise UserError(
            f"batch_size={batch_size} cannot be split over {parts} {name}; expected a multiple, "
            f"for instance {-(-batch_size // parts) * parts}"
        )
