from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
import subprocess
import sys
import textwrap
import threading

import jax
import numpy as np
import pytest

from flashmotion_jax.config import KnownFrames
from flashmotion_jax.data import batches as batches_module
from flashmotion_jax.data.batches import draw_known_frames, first_records, latent_batches
from flashmotion_jax.runtime.sharding import BATCH, make_mesh
from helpers import small_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return small_cache.make_cache(tmp_path_factory.mktemp("cache"), 12, rejected=(4, 9))


def make(cache, **changes):
    options = {"map_kind": "box", "batch_size": 4, "seed": 3, "text_len": 16, "mesh": make_mesh()}
    return latent_batches(cache, **options | changes)


def read(batches, count):
    read = [next(batches) for _ in range(count)]
    batches.close()
    return [jax.tree.map(np.asarray, batch) for batch in read]


def rows(batch):
    """Which rows of the small cache the videos of a batch are."""
    known = {small_cache.record(row).latents.tobytes(): row for row in range(12)}
    return [known[latents.tobytes()] for latents in batch.latents]


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for array, expected in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("map_kind", ["mask", "box"])
def test_batch_has_the_records_in_float32_with_padded_text(cache, map_kind):
    (batch,) = read(make(cache, map_kind=map_kind, text_len=20), 1)
    assert [array.shape for array in batch] == [(4, *small_cache.SHAPE)] * 2 + [(4, 20, 32)]
    assert {array.dtype for array in batch} == {np.dtype(np.float32)}
    for i, row in enumerate(rows(batch)):
        record = small_cache.record(row)
        np.testing.assert_array_equal(batch.trajectory[i], record.maps[map_kind])
        np.testing.assert_array_equal(batch.text[i, : len(record.text)], record.text)
        assert not batch.text[i, len(record.text) :].any()


def test_epoch_has_each_video_once_and_the_next_another_order(cache):
    batches = read(make(cache), 5)
    seen = [row for batch in batches for row in rows(batch)]
    kept = [row for row in range(12) if row not in (4, 9)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == kept
    assert seen[:10] != seen[10:] and seen[:10] != kept


def test_adjacent_seeds_share_no_epoch(cache):
    # grain adds the epoch to the seed: without care epoch 1 of seed 0 is epoch 0 of seed 1.
    orders = []
    for seed in (0, 1):
        seen = [
            row for batch in read(make(cache, seed=seed, batch_size=10), 3) for row in rows(batch)
        ]
        orders += [tuple(seen[i : i + 10]) for i in (0, 10, 20)]
    assert len(set(orders)) == 6


def test_the_same_seed_gives_the_same_batches(cache):
    assert_equal(read(make(cache), 4), read(make(cache, num_threads=1), 4))


@pytest.mark.parametrize("step", [0, 1, 3, 100])
def test_set_state_equals_iterating(cache, step):
    straight = make(cache)
    for _ in range(step):
        next(straight)
    state = json.loads(json.dumps(straight.get_state()))
    assert state["step"] == step
    resumed = make(cache)
    next(resumed)  # what was read ahead must go
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_equal(read(resumed, 3), read(straight, 3))


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_read_parts_of_the_same_global_batch(cache, process_count):
    pieces = [
        read(make(cache, process_index=p, process_count=process_count), 6)
        for p in range(process_count)
    ]
    joined = [
        jax.tree.map(lambda *a: np.concatenate(a), *parts) for parts in zip(*pieces, strict=True)
    ]
    assert joined[0].latents.shape[0] == 4
    assert_equal(joined, read(make(cache), 6))


def test_batches_are_split_over_the_mesh(cache):
    mesh = make_mesh(data=2, fsdp=2, context=2)
    batches = make(cache, mesh=mesh)
    split = next(batches)
    batches.close()
    for array in split:
        assert array.sharding.spec == BATCH and len(array.sharding.device_set) == 8
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {1}
    assert_equal([jax.tree.map(np.asarray, split)], read(make(cache), 1))


@dataclasses.dataclass(frozen=True)
class Device:
    process_index: int
    row: int


class Layout:
    """What `_own_piece` asks of a sharding: which rows each process has, one on each device."""

    def __init__(self, *rows_of_processes):
        self.rows_of_processes = rows_of_processes

    def devices_indices_map(self, shape):
        assert shape == (sum(map(len, {*self.rows_of_processes})),)
        return {
            Device(process, row): (slice(row, row + 1),)
            for process, rows in enumerate(self.rows_of_processes)
            for row in rows
        }


@pytest.mark.parametrize(
    ("rows", "piece"),
    [
        ([(0, 1), (2, 3)], (0, 2)),
        ([(1, 3), (0, 2)], (1, 2)),  # as on a torus
        ([(2, 3), (0, 1), (0, 1), (2, 3)], (1, 2)),  # two processes share the videos
    ],
)
def test_process_reads_the_part_on_its_devices(rows, piece):
    assert batches_module._own_piece(Layout(*rows), 4) == piece


def test_unequal_or_overlapping_parts_raise():
    with pytest.raises(ValueError, match=r"the videos \(0, 1, 2\) of a batch of 4"):
        batches_module._own_piece(Layout((0, 1, 2), (3,)), 4)


TWO_PROCESSES = """
import hashlib, sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
process = int(sys.argv[1])
jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, process)
from flashmotion_jax.data.batches import latent_batches
from flashmotion_jax.data.latent_cache import open_cache
from flashmotion_jax.runtime.sharding import make_mesh

for axes in ({"data": 4}, {"fsdp": 2, "context": 2}, {"context": 4}):
    batches = latent_batches(
        open_cache(sys.argv[3]), map_kind="box", batch_size=4, seed=3, text_len=16,
        mesh=make_mesh(**axes),
    )
    next(batches)
    batch = next(batches)
    assert batch.latents.shape[0] == 4
    for shard in batch.latents.addressable_shards:
        for i, video in enumerate(shard.data):
            row = range(4)[shard.index[0]][i]
            print(row, hashlib.sha256(video.tobytes()).hexdigest())
    batches.close()
"""


def test_two_processes_read_the_rows_of_their_devices(cache):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(p), port, str(cache.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for p in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert not any(process.returncode for process in processes), outputs
    batch = read(make(cache), 2)[1]
    expected = [hashlib.sha256(latents.tobytes()).hexdigest() for latents in batch.latents]
    seen = [line.split() for out, _ in outputs for line in out.splitlines()]
    assert len(seen) == 4 + 2 * 4 + 4 * 4
    assert all(expected[int(row)] == digest for row, digest in seen)


def test_state_of_other_data_raises(cache, tmp_path):
    other = make(small_cache.make_cache(tmp_path, 12))
    batches = make(cache)
    for wrong, message in (
        (other, "cache='.*' \\(here '.*'\\)"),
        (make(cache, seed=4), "seed=4 \\(here 3\\)"),
        (make(cache, batch_size=2), "batch_size=2 \\(here 4\\)"),
    ):
        with pytest.raises(ValueError, match=f"the state belongs to other data: {message}"):
            batches.set_state(wrong.get_state())
        wrong.close()
    with pytest.raises(ValueError, match="it has no step"):
        batches.set_state({k: v for k, v in batches.get_state().items() if k != "step"})
    batches.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 16}, "batch_size=16; expected 1 to 10, the number of videos in"),
        ({"batch_size": 0}, "batch_size=0; expected 1 to 10"),
        (
            {"batch_size": 4, "process_index": 0, "process_count": 3},
            "over 3 processes; .* instance 6",
        ),
        ({"batch_size": 6, "mesh": (2, 2)}, "over 4 batch devices; .* for instance 8"),
        ({"map_kind": "boxes"}, "map_kind='boxes'; expected one of mask, box, points"),
        ({"map_kind": "points"}, r"has mask, box, and not points; .*map_kinds=.*'points'"),
        (
            {"known_frames": KnownFrames(0.5, 0.1)},
            "has mask, box, and not box_frames; .*single_frames=true",
        ),
        ({"text_len": 8}, "text_len=8, but captions in .* have up to 16 tokens"),
    ],
)
def test_invalid_batches_raise(cache, changes, message):
    if "mesh" in changes:
        changes = {**changes, "mesh": make_mesh(*changes["mesh"])}
    with pytest.raises(ValueError, match=message):
        make(cache, **changes)


def test_damaged_record_raises_with_the_name_of_its_shard(tmp_path):
    cache = small_cache.make_cache(tmp_path, 4)
    file = tmp_path / "shard_00000.array_record"
    data = bytearray(file.read_bytes())
    data[data.find(small_cache.record(2).maps["box"].astype(np.float16).tobytes()[:64])] ^= 1
    file.write_bytes(data)
    batches = make(cache)
    with pytest.raises(ValueError, match=r"shard_00000\.array_record, cannot be read"):
        next(batches)
    batches.close()


def test_close_stops_the_threads(cache):
    before = set(threading.enumerate())
    batches = make(cache)
    next(batches)
    batches.close()
    batches.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


@pytest.mark.parametrize("closing", ["batches.close()", "pass"])
def test_process_exits_without_hanging_or_warning(cache, closing):
    code = f"""
        from flashmotion_jax.data.batches import latent_batches
        from flashmotion_jax.data.latent_cache import open_cache
        from flashmotion_jax.runtime.sharding import make_mesh
        batches = latent_batches(open_cache({str(cache.path)!r}), map_kind="box",
                          batch_size=4, seed=0, text_len=16, mesh=make_mesh())
        next(batches)
        {closing}
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr and not done.stdout


def test_first_records_are_those_of_the_csv(cache):
    batch = first_records(cache, 3, "mask", 16)
    assert all(isinstance(array, np.ndarray) for array in batch)
    assert rows(batch) == [0, 1, 2]
    np.testing.assert_array_equal(batch.trajectory[1], small_cache.record(1).maps["mask"])
    with pytest.raises(ValueError, match="count=11; expected 1 to 10"):
        first_records(cache, 11, "mask", 16)


def test_known_frames_are_drawn_by_their_law():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_known_frames(rng, 5, KnownFrames(0.7, 0.2)) for _ in range(4000)])
    counts = np.bincount(drawn.sum(axis=1), minlength=6) / 4000
    np.testing.assert_allclose(counts, [0.2, 0.16, 0.16, 0.16, 0.208, 0.112], atol=0.03)
    some = drawn[drawn.any(axis=1)]
    assert some[:, 0].mean() == pytest.approx(0.7, abs=0.03)
    np.testing.assert_allclose(some[:, 1:].mean(axis=0), some[:, 1:].mean(), atol=0.03)
    assert draw_known_frames(rng, 1, KnownFrames(0.0, 0.0)).tolist() == [True]


def test_batches_with_known_frames(tmp_path):
    """A mask as the last channel, zeros where it is 0, drawn by the seed and the position alone."""
    maps = ("mask", "box", "box_frames")
    cache = small_cache.make_cache(tmp_path, 12, maps=maps)
    known = {"known_frames": KnownFrames(0.5, 0.1)}
    batches = read(make(cache, **known), 3)
    for batch in batches:
        mask = batch.trajectory[..., -1]
        assert batch.trajectory.shape == (4, *small_cache.SHAPE[:3], 49)
        for i, row in enumerate(rows(batch)):
            frames = small_cache.record(row, maps).maps["box_frames"]
            np.testing.assert_array_equal(
                batch.trajectory[i, ..., :-1], frames * mask[i, ..., None]
            )
    masks = np.concatenate([batch.trajectory[..., 0, 0, -1] for batch in batches])
    assert set(np.unique(masks)) == {0, 1} and len(np.unique(masks, axis=0)) > 3
    halves = [read(make(cache, **known, process_index=k, process_count=2), 3) for k in (0, 1)]
    for k, part in enumerate(halves):
        for batch, own in zip(batches, part, strict=True):
            np.testing.assert_array_equal(own.trajectory, batch.trajectory[2 * k : 2 * k + 2])
