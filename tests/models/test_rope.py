from __future__ import annotations

import jax
import numpy as np
import pytest

from flashmotion_jax.models.rope import apply_rope, axis_dims, rope_table


def test_width_of_each_axis():
    assert axis_dims(128) == (44, 42, 42)
    assert axis_dims(24) == (8, 8, 8)


def test_table_is_the_analytic_rotation():
    table = np.asarray(rope_table((3, 2, 4), 128)).reshape(3, 2, 4, 64)
    t, h, w = 2, 1, 3
    expected = np.concatenate(
        [
            np.exp(1j * t * 10000.0 ** (-np.arange(22) / 22)),
            np.exp(1j * h * 10000.0 ** (-np.arange(21) / 21)),
            np.exp(1j * w * 10000.0 ** (-np.arange(21) / 21)),
        ]
    )
    np.testing.assert_allclose(table[t, h, w], expected, atol=1e-7)


def test_table_is_not_rounded_to_bfloat16():
    table = np.asarray(rope_table((31, 22, 40), 128))
    exact = np.exp(1j * 30 * 10000.0 ** (-np.arange(22) / 22))
    assert np.abs(table[-1, -1, :22] - exact).max() < 1e-6


def test_scores_depend_on_relative_position_alone():
    table = rope_table((8, 1, 1), 24)
    x = jax.random.normal(jax.random.key(0), (2, 1, 1, 24))
    turned = apply_rope(np.broadcast_to(x[:, None], (2, 8, 1, 1, 24)), table)
    scores = np.einsum("ie,je->ij", turned[0, :, 0, 0], turned[1, :, 0, 0])
    for offset in range(-7, 8):
        diagonal = np.diagonal(scores, offset)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)


def test_neighboring_channels_turn_together_and_keep_their_norm():
    x = jax.random.normal(jax.random.key(0), (1, 1, 6, 2, 24))
    turned = apply_rope(x, rope_table((1, 2, 3), 24))
    pairs, turned_pairs = (np.reshape(v, (6, 2, 12, 2)) for v in (x, turned))
    norms = np.linalg.norm(pairs, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(turned_pairs, axis=-1), norms, rtol=1e-5)
    np.testing.assert_allclose(turned[0, 0, 0], x[0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_result_is_float32(dtype):
    assert (
        apply_rope(jax.numpy.ones((1, 1, 1, 1, 24), dtype), rope_table((1, 1, 1), 24)).dtype
        == "float32"
    )
