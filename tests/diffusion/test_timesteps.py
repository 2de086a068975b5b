from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.diffusion.timesteps import (
    bell_weight,
    draw_timesteps,
    round_timesteps,
)

BASE_CODE_WEIGHTS = [
    (1000.0, 0.0),
    (999.7998046875, 0.0012814513),
    (989.148681640625, 0.0694540963),
    (952.3810424804688, 0.3038917482),
    (900.0560302734375, 0.6309027672),
    (833.3333129882812, 1.0248619318),
    (691.9642944335938, 1.7014600039),
    (500.59954833984375, 2.07640028),
    (208.3333282470703, 1.2507785559),
    (48.076927185058594, 0.3067959249),
    (4.9800801277160645, 0.0318790115),
]


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def timesteps_by_torch(shift, low, high):
    """The thousand timesteps there are, as PyTorch trainers make them from integers."""
    torch = pytest.importorskip("torch")
    sigmas = torch.arange(1000, dtype=torch.float64) / 1000
    return (1000 * shift * sigmas / (1 + (shift - 1) * sigmas)).clamp(low, high).numpy()


@pytest.mark.parametrize(
    ("shift", "low", "high"), [(5.0, 0.0, 1000.0), (5.0, 20.0, 980.0), (1.0, 0.0, 1000.0)]
)
def test_distribution_equals_the_reference(shift, low, high):
    drawn = draw_timesteps(keys(20_000), shift=shift, low=low, high=high)
    assert drawn.shape == (20_000,) and drawn.dtype == jnp.float32
    expected = np.sort(timesteps_by_torch(shift, low, high))
    distance = np.abs(np.unique(drawn)[:, None] - np.unique(expected)).min(axis=1)
    assert distance.max() < 1e-3
    # Sorted draws against sorted possibilities: 20 of each, so the quantiles nearly agree.
    quantiles = np.sort(np.asarray(drawn)).reshape(1000, 20).mean(axis=1)
    np.testing.assert_allclose(quantiles, expected, atol=14 * shift)
    assert np.mean(drawn) == pytest.approx(expected.mean(), abs=8)


def test_timesteps_without_a_shift_are_integers():
    drawn = np.asarray(draw_timesteps(keys(20_000), shift=1.0))
    np.testing.assert_allclose(drawn, np.round(drawn), atol=1e-4)
    assert drawn.min() == 0 and drawn.max() == pytest.approx(999, abs=1e-3)


def test_defaults_are_those_of_stage_1():
    drawn = draw_timesteps(keys(64))
    np.testing.assert_array_equal(drawn, draw_timesteps(keys(64), shift=5.0, low=0.0, high=1000.0))


def test_timestep_does_not_depend_on_the_batch():
    """Others' trainers squeeze a batch of one to a scalar."""
    batch = draw_timesteps(keys(7))
    for i, key in enumerate(keys(7)):
        alone = draw_timesteps(key[None])
        assert alone.shape == (1,)
        np.testing.assert_allclose(alone[0], batch[i], rtol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"shift": 0.0}, {"low": -1.0}, {"high": 1001.0}, {"low": 980.0, "high": 20.0}]
)
def test_invalid_ranges_raise(bad):
    with pytest.raises(ValueError, match="expected a shift above 0 and 0 <= low < high <= 1000"):
        draw_timesteps(keys(2), **bad)


def test_rounding_equals_bfloat16_then_truncation():
    timesteps = np.random.default_rng(0).uniform(0, 1000, 500).astype(np.float32)
    timesteps[:6] = 0, 0.3, 625, 627, 999.99, 1000  # 625 and 627 lie halfway between two values
    expected = np.trunc(timesteps.astype(jnp.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(round_timesteps(timesteps, "bfloat16"), expected)
    rounded = jax.jit(lambda t: round_timesteps(t, "bfloat16"))(timesteps)
    np.testing.assert_array_equal(rounded, expected)
    assert rounded.dtype == jnp.float32
    np.testing.assert_array_equal(round_timesteps(timesteps, "integer"), np.trunc(timesteps))
    assert round_timesteps(timesteps, "none") is timesteps


def test_bell_weights_are_those_of_the_base_code():
    """Numbers of `FlowMatchScheduler(shift=5).training_weight` of Wan2.2-TI2V-5B-Turbo."""
    timesteps = jnp.asarray(BASE_CODE_WEIGHTS)[:, 0]
    weights = bell_weight(timesteps, 5.0)
    np.testing.assert_allclose(weights, np.array(BASE_CODE_WEIGHTS)[:, 1], rtol=1e-5, atol=1e-6)
