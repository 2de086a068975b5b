"""Training batches: shuffled, independent of the number of machines, and resumable at any step.

Batch n depends only on the seed and n: the permutation of each epoch is computed, not drawn
sequentially, and each process reads its rows of the global batch. Epochs follow one another without
a gap, so a batch can contain the end of one epoch and the start of the next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding

from flashmotion_jax.config import CachedMapKind, KnownFrames
from flashmotion_jax.data.latent_cache import LatentCache, pad_text
from flashmotion_jax.data.records import Record, map_name
from flashmotion_jax.models.adapters.condition import sparse_condition
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import BATCH

Array = TypeVar("Array", jax.Array, np.ndarray)
Item = TypeVar("Item")


class Batch(NamedTuple, Generic[Array]):
    """B videos from a latent cache.

    Attributes:
      latents: Latents of the videos, float32 `[B, T, h, w, C]`; frame 0 encodes the first image.
      trajectory: Latents of the trajectory maps, of the same shape; frame 0 encodes masks. For an
        adapter that knows some frames only, the result of `sparse_condition`, with a channel more.
      text: Embeddings of the captions, float32 `[B, S, D]`, zero after the tokens of each caption.
    """

    latents: Array
    trajectory: Array
    text: Array


class Batches(Generic[Item]):
    """An endless iterator over batches, prefetched by threads or by processes.

    Args:
      source: Random-access source of records.
      example: Converts a record, and a random generator that depends on the seed and the position
        only, to arrays: a batch without the first dimension.
      fingerprint: Identifies the content of the source.
      batch_size: Global batch size B, over all processes.
      seed: Seed of the shuffling.
      mesh: Mesh whose batch axes the videos are split over.
      num_threads: Number of prefetched batches, each read by its own thread.
      num_workers: Number of processes with so many threads each. With 0, this process has them;
        drawing clips and decoding videos in Python then use little more than one core.
      process_index: Which of the `process_count` equal parts of a batch this process reads.
      process_count: Number of parts. By default, the mesh determines the rows of this process.

    Raises:
      UserError: The batch cannot be split over the mesh or the processes.
    """

    def __init__(
        self,
        source: Any,
        example: Callable[[Any, np.random.Generator], Any],
        *,
        fingerprint: str,
        batch_size: int,
        seed: int,
        mesh: Mesh,
        num_threads: int = 4,
        num_workers: int = 0,
        process_index: int | None = None,
        process_count: int | None = None,
    ):
        self._sharding = NamedSharding(mesh, BATCH)
        _check_divides(batch_size, mesh.shape["data"] * mesh.shape["fsdp"], "batch devices")
        if process_index is None or process_count is None:
            process_index, process_count = _own_piece(self._sharding, batch_size)
        _check_divides(batch_size, process_count, "processes")
        # Grain adds the epoch to the seed, so adjacent seeds would share permutations; hash the
        # seed.
        shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._dataset = (
            grain.MapDataset.source(source)
            .shuffle(seed=shuffle_seed)
            .repeat()
            .random_map(example, seed=shuffle_seed)
            .batch(batch_size // process_count, drop_remainder=True)
        )[process_index::process_count]
        self._threads = grain.ReadOptions(num_threads, prefetch_buffer_size=num_threads)
        self._workers = grain.MultiprocessingOptions(num_workers) if num_workers else None
        self._identity = {"cache": fingerprint, "batch_size": batch_size, "seed": seed}
        self._start(0)

    def _start(self, step: int) -> None:
        """Begins to prefetch at a step, without reading anything before it."""
        dataset = self._dataset[step:].to_iter_dataset(self._threads)
        if self._workers:
            flags.FLAGS.mark_as_parsed()  # grain passes its own flags to the processes
            dataset = dataset.mp_prefetch(self._workers)
        self._iterator, self._step = iter(dataset), step

    def __iter__(self) -> Batches[Item]:
        return self

    def __next__(self) -> Item:
        """Returns the next batch, with its first dimension split over the mesh."""
        arrays = next(self._iterator)
        self._step += 1
        to_devices = functools.partial(jax.make_array_from_process_local_data, self._sharding)
        return jax.tree.map(to_devices, arrays)

    def get_state(self) -> dict[str, Any]:
        """Returns the position of the iterator, in JSON types."""
        return {**self._identity, "step": self._step}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves the iterator to a saved position, without reading anything in between.

        Args:
          state: From `get_state`, possibly of a run with another number of processes.

        Raises:
          UserError: The state belongs to another cache, batch size or seed.
        """
        differing = [
            f"{name}={state.get(name)!r} (here {value!r})"
            for name, value in self._identity.items()
            if state.get(name) != value
        ]
        if differing or not isinstance(state.get("step"), int):
            raise UserError(
                f"the state belongs to other data: {', '.join(differing) or 'it has no step'}; "
                "resume with the same cache, batch size and seed, or start a new run"
            )
        self.close()
        self._start(state["step"])

    def close(self) -> None:
        """Stops the threads and processes; the iterator cannot be used afterwards."""
        self._iterator.close()


def latent_batches(
    cache: LatentCache,
    *,
    map_kind: CachedMapKind,
    text_len: int,
    batch_size: int,
    known_frames: KnownFrames | None = None,
    **options: Any,
) -> Batches[Batch[jax.Array]]:
    """Iterates over batches of a latent cache.

    Args:
      cache: The latent cache.
      map_kind: Which trajectory maps to read.
      text_len: Length S that captions are padded to.
      batch_size: Global batch size B, over all processes.
      known_frames: Of an adapter that knows some frames only; None for others.
      **options: See `Batches`.

    Raises:
      UserError: The batch is larger than the cache or cannot be split over the mesh, the cache
        lacks the maps, or `text_len` is shorter than captions in the cache may be.
    """
    _check_cache(cache, map_kind, known_frames, batch_size, text_len, "batch_size")
    example = functools.partial(
        _example, map_kind=map_kind, text_len=text_len, known_frames=known_frames
    )
    options |= {"fingerprint": cache.fingerprint, "batch_size": batch_size}
    return Batches(cache, example, **options)


def first_records(
    cache: LatentCache,
    count: int,
    map_kind: CachedMapKind,
    text_len: int,
    known_frames: KnownFrames | None = None,
) -> Batch[np.ndarray]:
    """Reads the first videos of a cache to the host, for sample videos during training.

    Args:
      cache: The latent cache.
      count: Number of videos B.
      map_kind: Which trajectory maps to read.
      text_len: Length S that captions are padded to.
      known_frames: See `latent_batches`.

    Raises:
      UserError: The cache has fewer videos or lacks the maps, or `text_len` is shorter than
        captions may be.
    """
    _check_cache(cache, map_kind, known_frames, count, text_len, "count")
    examples = [
        _example(cache[i], np.random.default_rng(i), map_kind, text_len, known_frames)
        for i in range(count)
    ]
    return Batch(*(np.stack(arrays) for arrays in zip(*examples, strict=True)))


def _example(
    record: Record,
    rng: np.random.Generator,
    map_kind: CachedMapKind,
    text_len: int,
    known_frames: KnownFrames | None,
) -> Batch[np.ndarray]:
    """Converts a record to a batch without the first dimension."""
    trajectory = record.maps[map_name(map_kind, known_frames is not None)].astype(np.float32)
    if known_frames is not None:
        known_T = draw_known_frames(rng, len(trajectory), known_frames)
        trajectory = sparse_condition(trajectory, known_T)
    return Batch(record.latents.astype(np.float32), trajectory, pad_text(record.text, text_len))


def draw_known_frames(
    rng: np.random.Generator, num_frames: int, known_frames: KnownFrames
) -> np.ndarray:
    """Draws the latent frames on which a trajectory is known, bool `[T]`."""
    known_T = np.zeros(num_frames, bool)
    if rng.random() < known_frames.none:
        return known_T
    count = rng.integers(1, num_frames + 1)
    known_T[0] = num_frames == 1 or rng.random() < known_frames.first
    later = min(count - known_T[0], num_frames - 1)
    known_T[1 + rng.choice(num_frames - 1, later, replace=False)] = True
    return known_T


def _own_piece(sharding: NamedSharding, batch_size: int) -> tuple[int, int]:
    """Returns the index of this process's part of a batch, and the number of parts.

    Processes that share videos, because the mesh splits each video further, have the same part. The
    rows of a part need not be adjacent; on the torus of a TPU they are not.
    """
    rows: dict[int, set[int]] = {}
    for device, index in sharding.devices_indices_map((batch_size,)).items():
        rows.setdefault(device.process_index, set()).update(range(batch_size)[index[0]])
    pieces = sorted({tuple(sorted(own)) for own in rows.values()})
    own = tuple(sorted(rows.get(jax.process_index(), ())))
    sizes = {len(piece) for piece in pieces}
    if not own or len(sizes) > 1 or sum(map(len, pieces)) != batch_size:
        raise UserError(
            f"this process has the videos {own} of a batch of {batch_size}, and all processes have "
            f"{pieces}, which are not equal parts; use all devices in the mesh, and choose "
            "mesh.data x mesh.fsdp as a multiple or a divisor of the number of processes"
        )
    return pieces.index(own), len(pieces)


def _check_cache(
    cache: LatentCache,
    map_kind: str,
    known_frames: KnownFrames | None,
    size: int,
    text_len: int,
    name: str,
) -> None:
    kinds = get_args(CachedMapKind)
    if map_kind not in kinds:
        raise UserError(f"map_kind={map_kind!r}; expected one of {', '.join(kinds)}")
    wanted, there = map_name(map_kind, known_frames is not None), cache.settings.maps
    if wanted not in there:
        fix = "single_frames=true" if known_frames else f"map_kinds={(*there, map_kind)}"
        raise UserError(
            f"map_kind={map_kind!r}: {cache.path} has {', '.join(there)}, and not {wanted}; write "
            f'a cache with `flashmotion cache --set "{fix}"`'
        )
    if not 1 <= size <= len(cache):
        raise UserError(
            f"{name}={size}; expected 1 to {len(cache)}, the number of videos in {cache.path}"
        )
    if text_len < cache.settings.text_len:
        raise UserError(
            f"text_len={text_len}, but captions in {cache.path} have up to "
            f"{cache.settings.text_len} tokens; use the text_len of the model that encoded them"
        )


def _check_divides(batch_size: int, parts: int, name: str) -> None:
    if batch_size % parts:
        raise UserError(
            f"batch_size={batch_size} cannot be split over {parts} {name}; expected a multiple, "
            f"for instance {-(-batch_size // parts) * parts}"
        )
