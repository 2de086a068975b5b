from __future__ import annotations

import dataclasses
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flashmotion_jax.data.records import Record, record_from_bytes, record_to_bytes


def record(**changes):
    rng = np.random.default_rng(0)
    latents, masks, boxes = rng.standard_normal((3, 3, 4, 6, 48), np.float32)
    text = rng.standard_normal((7, 32), np.float32)
    maps = {"mask": masks, "box": boxes}
    made = Record("v1", "ein Ball f\u00e4llt \u2603", latents, maps, text)
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip_in_the_stored_dtype(dtype):
    there = record()
    back = record_from_bytes(record_to_bytes(there, dtype))
    assert (back.id, back.caption) == (there.id, there.caption)
    for name in ("latents", "masks", "boxes", "text"):
        array = back.arrays[name]
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, there.arrays[name].astype(dtype))


def test_bytes_are_a_plain_zip_and_deterministic():
    data = record_to_bytes(record(caption=""), "float16")
    assert data == record_to_bytes(record(caption=""), "float16")
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.namelist() == ["record.json", "latents", "masks", "boxes", "text"]
        text = np.frombuffer(file.read("text"), "<f2").reshape(7, 32)
    np.testing.assert_array_equal(text, record().text.astype(np.float16))
    assert record_from_bytes(data).caption == ""
    arrays = sum(array.nbytes for array in record().arrays.values()) // 2
    assert arrays < len(data) < arrays + 2000


@pytest.mark.parametrize(
    ("value", "message"),
    [(7e4, "values up to 70000, which float16 cannot represent; store the cache in float32"),
     (np.inf, "check the model"), (np.nan, "check the model")],
)  # fmt: skip
def test_values_out_of_range_raise(value, message):
    latents = record().latents.copy()
    latents[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=f"latents of v1 has .*{message}"):
        record_to_bytes(record(latents=latents), "float16")
    if np.isfinite(value):
        assert record_from_bytes(record_to_bytes(record(latents=latents), "float32"))


def test_flipped_bits_are_detected():
    data = record_to_bytes(record(), "float16")
    for position in range(0, len(data), 997):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(ValueError, match="damaged record"):
            record_from_bytes(bytes(damaged))
    with pytest.raises(ValueError, match="damaged record"):
        record_from_bytes(data[:-100])


def test_threads_read_concurrently():
    data = record_to_bytes(record(), "float16")
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: record_from_bytes(data).id, range(2000)))
    assert ids == ["v1"] * 2000


def test_pickles_raise():
    buffer = io.BytesIO()
    np.savez(buffer, latents=np.array([{}], object), masks=0, boxes=0, text=0, id="", caption="")
    with pytest.raises(ValueError, match="damaged record"):
        record_from_bytes(buffer.getvalue())


def test_other_dtypes_raise():
    with pytest.raises(ValueError, match="dtype='bfloat16'; expected one of float16, float32"):
        record_to_bytes(record(), "bfloat16")
