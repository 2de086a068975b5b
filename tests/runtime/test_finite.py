"""Arrays of any dtype and place are checked; on CPUs by their bits, elsewhere by a program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.runtime import finite

DTYPES = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 2**18 + 3])
def test_one_value_is_found_wherever_it_is(dtype, size):
    largest = jnp.finfo(dtype).max
    good = np.full(size, largest, dtype)
    good[size // 2] = -largest
    assert finite.find_not_finite({"good": good, "ids": np.arange(3), "none": good[:0]}) == []
    for value in [np.nan, -np.nan] if dtype == "float8_e4m3fn" else [np.nan, np.inf, -np.inf]:
        for place in {0, size // 2, size - 1}:
            bad = good.copy()
            bad[place] = value
            assert finite.find_not_finite({"good": good, "bad": bad}) == ["bad"]


@pytest.mark.parametrize("on_host", [True, False])
def test_arrays_of_jax_are_checked(monkeypatch, on_host):
    monkeypatch.setattr(finite, "_is_on_host", lambda array: on_host)
    good, bad = jnp.ones((3, 2), jnp.bfloat16), jnp.array([[1, jnp.inf]])
    arrays = {"bad": bad, "good": good, "ids": jnp.arange(3), "nan": bad * 0}
    assert finite.find_not_finite(arrays) == ["bad", "nan"]


@pytest.mark.parametrize("spec", [("data",), ()])
def test_arrays_on_several_devices_are_checked(spec):
    mesh = jax.make_mesh((8,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    values = np.arange(16, dtype=np.float32)
    assert finite.find_not_finite({"a": jax.device_put(values, sharding)}) == []
    values[13] = np.nan
    assert finite.find_not_finite({"a": jax.device_put(values, sharding)}) == ["a"]


def test_a_stage_is_named():
    finite.require_finite("text", "the text encoder", text=np.ones(3), negative_text=None)
    with pytest.raises(FloatingPointError, match=r"stage 'encode' .*\(maps\).* of the VAE"):
        finite.require_finite("encode", "the VAE", image=np.ones(3), maps=np.array([np.nan]))
