from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax import SamplingConfig
from flashmotion_jax.checkpoints import components
from flashmotion_jax.data import cache_dataset as caching
from flashmotion_jax.data.cache_dataset import cache_dataset
from flashmotion_jax.data.examples import open_examples
from flashmotion_jax.data.latent_cache import open_cache, verify_cache
from flashmotion_jax.data.magicdata import MagicData
from flashmotion_jax.inference.pipeline import Pipeline
from flashmotion_jax.media.images import to_float
from flashmotion_jax.runtime.jit import program
from helpers import magicdata_tree as tree
from helpers import tiny

SIZE = {"num_frames": tree.FRAMES, "height": 32, "width": 64}
SAMPLING = SamplingConfig(negative_prompt="a red ball")
GOOD = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("model"), SAMPLING)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tree.make_tree(tmp_path_factory.mktemp("data"), GOOD)
    tree.add_bad_rows(root, GOOD)
    return root


def run(data, output, model, **changes):
    options = {**SIZE, "videos_per_shard": 3, "dtype": "float32"} | changes
    return cache_dataset(data, "MagicData.csv", output, model, **options)


@pytest.fixture(scope="module")
def cache(data, model, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("cache"), model)


def assert_same_records(cache, other):
    assert len(cache) == len(other)
    for record, expected in zip(cache, other, strict=True):
        assert (record.id, record.caption) == (expected.id, expected.caption)
        for array, wanted in zip(record.arrays.values(), expected.arrays.values(), strict=True):
            np.testing.assert_array_equal(array, wanted)


def hashes(folder):
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.glob("shard_*")
    }


def test_good_rows_are_cached_in_order_and_others_reported(cache):
    assert [record.id for record in cache] == [f"v{i}" for i in range(GOOD)]
    report = json.loads((cache.path / "report.json").read_text())
    assert report["num_rows"] == GOOD + len(tree.PROBLEMS)
    assert {row["id"] for row in report["rejected"]} == set(tree.PROBLEMS)
    numbers = [row["row"] for row in report["rejected"]]
    assert numbers == sorted(numbers)
    for row in report["rejected"]:
        assert tree.PROBLEMS[row["id"]] in row["reason"]
    assert cache.num_rejected == len(tree.PROBLEMS) and len(cache.shards) == 5
    assert verify_cache(cache.path) == ()


def encoder(model):
    """The VAE on its own: uint8 frames to latents, as the pipeline brings them to it."""
    vae = components.load_component(model, "vae", "float32")
    encode = program(lambda vae, video: vae.encode(video)[0])
    return lambda frames: encode(vae, jnp.asarray(to_float(frames))[None])


def test_latents_equal_the_vae(cache, data, model):
    encode = encoder(model)
    example = MagicData(data, **SIZE)[0]
    record = cache[0]
    assert record.latents.shape == cache.latent_shape == (3, 2, 4, 48)
    for frames, latents in (
        (example.video, record.latents),
        (example.masks, record.maps["mask"]),
        (example.boxes, record.maps["box"]),
    ):
        np.testing.assert_allclose(latents, encode(frames), atol=1e-5)
    assert (record.latents != cache[1].latents).any()
    assert (record.maps["mask"][1:] != record.maps["box"][1:]).any()


@pytest.mark.filterwarnings("ignore:.*prompt")  # the tiny model knows few words
def test_drawn_clips_can_be_cached(model, tmp_path):
    options = {"data": "sprites", "num_clips": 4, **SIZE, "num_frames": 9}
    cache = cache_dataset("", "", tmp_path, model, **options, dtype="float32")
    assert [record.id for record in cache] == [f"train-0-{i:06d}" for i in range(4)]
    example = open_examples(**options, data_root="", csv="", resize="stretch")[2]
    np.testing.assert_allclose(cache[2].maps["box"], encoder(model)(example.boxes), atol=1e-5)
    assert cache[2].caption == example.caption


@pytest.mark.filterwarnings("ignore:.*prompt")  # the tiny model knows few words
def test_points_and_single_frames_can_be_cached(model, tmp_path):
    options = {"data": "sprites", "num_clips": 1, **SIZE, "num_frames": 9}
    maps = {"map_kinds": ("box", "points"), "single_frames": True, "point_sigma": 0.1}
    cache = cache_dataset("", "", tmp_path, model, **options, **maps, dtype="float32")
    assert list(cache[0].maps) == ["box", "points", "box_frames", "points_frames"]
    assert cache.settings.point_sigma == 0.1
    example = open_examples(**options, data_root="", csv="", resize="stretch", point_sigma=0.1)[0]
    encode = encoder(model)
    np.testing.assert_allclose(cache[0].maps["points"], encode(example.points), atol=1e-5)
    for t in range(3):
        alone = encode(example.boxes[4 * t : 4 * t + 1])[0]
        np.testing.assert_allclose(cache[0].maps["box_frames"][t], alone, atol=1e-5)
    with pytest.raises(ValueError, match=r"maps=\['box', .*this run: \['mask', 'box'\]"):
        cache_dataset("", "", tmp_path, model, **options, dtype="float32")


def test_latent_frame_0_encodes_the_first_image_and_the_masks(cache, data, model):
    """Why the image's latent is not stored, and why frame 0 of both maps is one."""
    example = MagicData(data, **SIZE)[0]
    image = encoder(model)(example.video[:1])
    np.testing.assert_allclose(cache[0].latents[:1], image, atol=1e-5)
    np.testing.assert_array_equal(cache[0].maps["mask"][0], cache[0].maps["box"][0])


def test_text_equals_the_pipeline(cache, model):
    encode = Pipeline.from_pretrained(model, None)._encode_prompts
    captions = [record.caption for record in cache]
    expected = np.asarray(encode([*captions, "", SAMPLING.negative_prompt]))
    for record, embedding in zip(cache, expected, strict=False):
        tokens = len(record.text)
        assert 0 < tokens < cache.settings.text_len == 16
        np.testing.assert_array_equal(record.text, embedding[:tokens])
        assert embedding[:tokens].any(axis=-1).all() and not embedding[tokens:].any()
    np.testing.assert_array_equal(cache.empty_text, expected[-2])
    np.testing.assert_array_equal(cache.negative_text, expected[-1])


def test_float16_is_the_rounded_float32(cache, data, model, tmp_path):
    half = run(data, tmp_path, model, dtype="float16")
    for record, full in zip(half, cache, strict=True):
        for array, expected in zip(record.arrays.values(), full.arrays.values(), strict=True):
            np.testing.assert_array_equal(array, expected.astype(np.float16))


def test_two_processes_write_the_same_cache_as_one(cache, data, model, tmp_path):
    assert run(data, tmp_path, model, process_index=1, process_count=2) is None
    there = hashes(tmp_path)
    assert {name[:11] for name in there} == {"shard_00001", "shard_00003"}
    other = run(data, tmp_path, model, process_index=0, process_count=2)
    assert_same_records(other, cache)
    assert other.fingerprint == cache.fingerprint
    assert there.items() <= hashes(tmp_path).items()


def test_a_finished_cache_is_opened_without_a_model(cache, data, model, monkeypatch):
    monkeypatch.setattr(components, "load_component", pytest.fail)
    assert run(data, cache.path, model).fingerprint == cache.fingerprint


def test_damaged_shard_is_repaired_as_the_error_says(cache, data, model, tmp_path):
    fresh = run(data, tmp_path, model)
    shard = tmp_path / "shard_00001.array_record"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"remove shard_00001\.json and cache\.json and run"):
        run(data, tmp_path, model)
    (tmp_path / "shard_00001.json").unlink()
    (tmp_path / "cache.json").unlink()
    assert run(data, tmp_path, model).fingerprint == fresh.fingerprint == cache.fingerprint


KILLED = """
import sys, time
sys.path[:0] = [".", "tests", "tests/data"]
from flashmotion_jax.data import cache_dataset
import test_cache_dataset
encode_row = cache_dataset._encode_row
def slowly(*args):
    time.sleep(0.3)
    return encode_row(*args)
cache_dataset._encode_row = slowly
test_cache_dataset.run(*sys.argv[1:])
"""


def test_killed_run_resumes(cache, data, model, tmp_path):
    command = [sys.executable, "-c", KILLED, str(data), str(tmp_path), str(model)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    try:
        until = time.monotonic() + 120
        while not list(tmp_path.glob("shard_*.json")) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = hashes(tmp_path)
    assert "shard_00000.json" in finished and "shard_00004.json" not in finished
    whole = {name: value for name, value in finished.items() if f"{name[:11]}.json" in finished}
    other = run(data, tmp_path, model)
    assert_same_records(other, cache)
    assert whole.items() <= hashes(tmp_path).items()
    assert verify_cache(tmp_path) == () and not list(tmp_path.glob(".*"))


def test_progress_counts_the_remaining_rows(data, model, tmp_path):
    seen = []
    run(
        data,
        tmp_path,
        model,
        process_index=1,
        process_count=3,
        progress=lambda *at: seen.append(at),
    )
    assert seen == [("cache", done, 5) for done in range(6)]


def test_decoding_prefetches_a_few_videos(cache, data):
    class Source:
        def __init__(self):
            self.started = []

        def __getitem__(self, index):
            self.started.append(index)
            return index

    source = Source()
    rows = caching._read_ahead(source, range(20))
    assert next(rows) == 0
    time.sleep(0.1)
    assert sorted(source.started) == list(range(caching.DECODING_THREADS + 1))
    assert list(rows) == list(range(1, 20))


def test_other_settings_raise_before_a_model_is_loaded(cache, data, model, monkeypatch):
    monkeypatch.setattr(components, "load_component", pytest.fail)
    with pytest.raises(
        ValueError, match=r"contains a cache with resize='stretch' \(this run: 'crop'"
    ):
        run(data, cache.path, model, resize="crop")
    with pytest.raises(ValueError, match=r"num_frames=9 \(this run: 5\)"):
        run(data, cache.path, model, num_frames=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 10}, r"frames=10; expected 4 n \+ 1, for instance 9"),
        ({"height": 48}, "height=48, .*; expected a height that is a multiple of 32"),
        ({"width": 0}, "width=0; expected .* a width that is a multiple of 32"),
        ({"dtype": "int8"}, "dtype='int8'; expected one of float16, float32"),
        ({"videos_per_shard": 0}, "videos_per_shard=0; expected at least 1"),
        ({"process_index": 2, "process_count": 2}, "process_index=2 of process_count=2; .* 0 to 1"),
        ({"resize": "pad"}, "resize='pad'"),
    ],
)
def test_invalid_arguments_raise_before_anything_is_loaded(
    data, model, tmp_path, monkeypatch, changes, message
):
    monkeypatch.setattr(components, "load_component", pytest.fail)
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path / "new", model, **changes)
    assert not (tmp_path / "new").exists()


def test_open_cache_equals_the_written_cache(cache):
    assert open_cache(cache.path).fingerprint == cache.fingerprint
