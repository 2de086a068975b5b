from __future__ import annotations

import dataclasses
import json
import resource
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flashmotion_jax.data.cache_writer import (
    finish_cache,
    has_shard,
    require_same_settings,
    write_shard,
    write_text,
)
from flashmotion_jax.data.latent_cache import open_cache, verify_cache
from helpers import small_cache


def equal(a, b):
    return (a.id, a.caption, a.arrays.keys()) == (b.id, b.caption, b.arrays.keys()) and all(
        np.array_equal(array, b.arrays[name]) for name, array in a.arrays.items()
    )


def test_records_are_in_the_order_of_the_rows(tmp_path):
    cache = small_cache.make_cache(tmp_path, 10, rejected=(0, 5))
    assert len(cache) == cache.num_records == 8 and cache.num_rejected == 2
    assert cache.latent_shape == small_cache.SHAPE
    expected = [row for row in range(10) if row not in (0, 5)]
    for index, row in enumerate(expected):
        assert equal(cache[index], small_cache.record(row))
    assert cache[-1].id == "v9"
    with pytest.raises(IndexError):
        cache[8]
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda i: cache[i % 8].id, range(64)))
    assert ids == [f"v{row}" for row in expected] * 8


def test_an_empty_shard_in_the_middle(tmp_path):
    cache = small_cache.make_cache(tmp_path, 6, rejected=(2, 3), videos_per_shard=2)
    assert [shard.num_records for shard in cache.shards] == [2, 0, 2]
    assert [record.id for record in cache] == ["v0", "v1", "v4", "v5"]
    assert verify_cache(tmp_path) == ()


def test_settings_texts_totals_and_report(tmp_path):
    small_cache.make_cache(tmp_path, 10, rejected=(5,))
    cache = open_cache(tmp_path)
    assert cache.settings == small_cache.settings(10)
    for text, stored in (
        (small_cache.EMPTY, "empty_text"),
        (small_cache.NEGATIVE, "negative_text"),
    ):
        padded = getattr(cache, stored)
        assert padded.dtype == np.float32 and padded.shape == (16, 32)
        np.testing.assert_array_equal(padded[: len(text)], text)
        assert not padded[len(text) :].any()
    values = json.loads((tmp_path / "cache.json").read_text())
    assert (values["num_records"], values["num_rejected"]) == (9, 1)
    assert values["num_bytes"] == cache.num_bytes
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == {
        "num_rows": 10,
        "num_records": 9,
        "rejected": [{"row": 5, "line": None, "id": "v5", "reason": "is short"}],
    }
    names = {"cache.json", "report.json", "text.npz"}
    shards = {f"shard_{n:05d}.{end}" for n in range(3) for end in ("json", "array_record")}
    assert {path.name for path in tmp_path.iterdir()} == names | shards


def test_fingerprint_identifies_the_content(tmp_path):
    first = small_cache.make_cache(tmp_path / "a", 6)
    again = small_cache.make_cache(tmp_path / "b", 6)
    other = small_cache.make_cache(tmp_path / "c", 6, rejected=(1,))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_shard_exists_with_its_json_and_full_size(tmp_path):
    settings = small_cache.settings(4)
    assert not has_shard(tmp_path, 0, settings)
    write_shard(tmp_path, 0, settings, small_cache.rows_of(0, settings))
    assert has_shard(tmp_path, 0, settings)
    shard, entry = tmp_path / "shard_00000.array_record", tmp_path / "shard_00000.json"
    text = entry.read_text()
    entry.unlink()
    assert not has_shard(tmp_path, 0, settings)
    entry.write_text(text)
    shard.write_bytes(shard.read_bytes()[:-1])
    assert not has_shard(tmp_path, 0, settings)


def test_an_interrupted_shard_leaves_nothing(tmp_path):
    settings = small_cache.settings(4)

    def rows():
        yield small_cache.record(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, 0, settings, rows())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    settings = small_cache.settings(4)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"shard_00000\.array_record cannot be written: .*too large"
        ):
            write_shard(tmp_path, 0, settings, small_cache.rows_of(0, settings))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_two_processes_can_finish_at_the_same_time(tmp_path):
    cache = small_cache.make_cache(tmp_path, 8)
    (tmp_path / "cache.json").unlink()
    with ThreadPoolExecutor(8) as pool:
        caches = list(pool.map(lambda _: finish_cache(tmp_path, cache.settings), range(16)))
    assert {other.fingerprint for other in caches} == {cache.fingerprint}


def test_last_shard_completes_the_cache_and_removes_leftovers(tmp_path):
    settings = small_cache.settings(8)
    write_text(tmp_path, small_cache.EMPTY, small_cache.NEGATIVE)
    (tmp_path / ".shard_00000.array_record.x1").mkdir()
    write_shard(tmp_path, 1, settings, small_cache.rows_of(1, settings))
    assert finish_cache(tmp_path, settings) is None
    with pytest.raises(ValueError, match=r"is incomplete: no cache\.json; run"):
        open_cache(tmp_path)
    write_shard(tmp_path, 0, settings, small_cache.rows_of(0, settings))
    assert len(finish_cache(tmp_path, settings)) == 8
    assert not list(tmp_path.glob(".*"))


def test_other_settings_raise_with_the_difference(tmp_path):
    settings = small_cache.settings(4)
    other = dataclasses.replace(settings, height=32, latent_shape=(3, 2, 6, 48))
    write_shard(tmp_path, 0, settings, small_cache.rows_of(0, settings))
    message = (
        r"height=64 \(this run: 32\), latent_shape=\[3, 4, 6, 48\] \(this run: \[3, 2, 6, 48\]\)"
    )
    for check in (lambda: has_shard(tmp_path, 0, other), lambda: finish_cache(tmp_path, other)):
        with pytest.raises(ValueError, match=message):
            check()
    require_same_settings(tmp_path, other)
    write_text(tmp_path, small_cache.EMPTY, small_cache.NEGATIVE)
    finish_cache(tmp_path, settings)
    require_same_settings(tmp_path, settings)
    with pytest.raises(ValueError, match=message):
        require_same_settings(tmp_path, other)


@pytest.mark.parametrize("name", ["shard_00001.array_record", "text.npz"])
def test_truncated_or_missing_file_is_detected_on_open(tmp_path, name):
    small_cache.make_cache(tmp_path, 8)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-10])
    repair = "shard_00001.json" if name.startswith("shard") else name
    with pytest.raises(ValueError, match=rf"{name} has \d+ bytes of \d+; .*remove {repair} and"):
        open_cache(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        open_cache(tmp_path)
    assert verify_cache(tmp_path) == (file,)


def test_flipped_byte_is_detected_by_verify_and_on_read(tmp_path):
    small_cache.make_cache(tmp_path, 8)
    file = tmp_path / "shard_00001.array_record"
    data = bytearray(file.read_bytes())
    at = data.find(small_cache.record(6).latents.astype(np.float16).tobytes()[:64])
    assert at > 0
    data[at] ^= 1
    file.write_bytes(data)
    cache = open_cache(tmp_path)
    assert verify_cache(tmp_path) == (file,)
    assert cache[5].id == "v5" and cache[7].id == "v7"
    with pytest.raises(
        ValueError, match=r"record 6, in .*shard_00001\.array_record, cannot be read"
    ):
        cache[6]


def test_other_folders_raise(tmp_path):
    with pytest.raises(ValueError, match=r"is not a latent cache: no cache\.json"):
        open_cache(tmp_path / "nothing")
    (tmp_path / "cache.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        open_cache(tmp_path)
    (tmp_path / "cache.json").write_text('{"format": "x", "version": 3}')
    with pytest.raises(ValueError, match="has format 'x', version 3; expected"):
        verify_cache(tmp_path)


def test_cache_without_videos_raises_and_writes_a_report(tmp_path):
    with pytest.raises(ValueError, match=r"none of the 3 rows could be cached; .*report\.json"):
        small_cache.make_cache(tmp_path, 3, rejected=(0, 1, 2))
    assert len(json.loads((tmp_path / "report.json").read_text())["rejected"]) == 3
