"""Attention with tokamax, whose kernel needs an H100: how it is chosen and called."""

import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.models.attention import attending_with, attention, choose_kernel
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import compiling_for


@pytest.fixture
def tokamax(monkeypatch):
    """Stands in for the package; its attention is that of JAX, and records how it was called."""
    calls = []

    def dot_product_attention(query, key, value, *, key_value_seq_lengths, implementation):
        assert query.shape[1] % 8 == key.shape[1] % 8 == value.shape[1] % 8 == 0
        calls.append(implementation)
        return jax.nn.dot_product_attention(
            query, key, value, key_value_seq_lengths=key_value_seq_lengths
        )

    package = SimpleNamespace(dot_product_attention=dot_product_attention, calls=calls)
    monkeypatch.setitem(sys.modules, "tokamax", package)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: package)
    return package


def inputs(dtype=jnp.bfloat16, num_keys=7):
    shapes = ((1, 12, 2, 16), (1, num_keys, 2, 16), (1, num_keys, 2, 16))
    return [jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("num_keys", [7, 8])
def test_it_is_called_by_the_name_of_its_kernel(tokamax, num_keys):
    """Without a name, it falls back to a matrix of all scores. Padding is not attended to."""
    with compiling_for("gpu"), attending_with("tokamax"):
        found = attention(*inputs(num_keys=num_keys))
    assert tokamax.calls == ["mosaic"]
    expected = attention(*inputs(num_keys=num_keys))
    np.testing.assert_allclose(found.astype(jnp.float32), expected.astype(jnp.float32), atol=0.02)


def test_it_is_chosen_on_request_for_16_bits_on_gpus(tokamax):
    half, single = inputs()[0], inputs(jnp.float32)[0]
    with compiling_for("gpu"):
        assert choose_kernel(half) == "cuDNN"
        with attending_with("tokamax"):
            assert choose_kernel(half) == "tokamax"
            assert choose_kernel(single) == "chunked"
        assert choose_kernel(half) == "cuDNN"
    with attending_with("tokamax"):
        assert choose_kernel(half) == "chunked"  # on a CPU


def test_a_device_without_the_kernel_is_one_line(tokamax, monkeypatch):
    def refuse(*_, **options):
        raise NotImplementedError("Not supported on NVIDIA A100-SXM4-80GB.")

    monkeypatch.setattr(tokamax, "dot_product_attention", refuse)
    with (
        compiling_for("gpu"),
        attending_with("tokamax"),
        pytest.raises(UserError, match=r"A100.*H100 on; leave out --attention tokamax"),
    ):
        attention(*inputs())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(ImportError, match=r"pip install 'flashmotion_jax\[tokamax\]'"),
        attending_with("tokamax"),
    ):
        pass
