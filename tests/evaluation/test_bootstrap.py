from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.bootstrap import interval, paired_difference
from flashmotion_jax.evaluation.frechet import frechet_distance, frechet_of_pairs


def test_intervals_cover_the_mean_at_their_level():
    rng = np.random.default_rng(0)
    samples = rng.normal(3, 2, (400, 50))
    intervals = [interval(sample, resamples=300, level=0.9) for sample in samples]
    covered = np.mean([found.low <= 3 <= found.high for found in intervals])
    # Percentile intervals are slightly short, about 0.885 at N = 50, with a deviation of 0.015.
    assert 0.84 < covered < 0.94
    widths = [found.high - found.low for found in intervals]
    assert np.mean(widths) == pytest.approx(2 * 1.645 * 2 / np.sqrt(50), rel=0.05)


def test_pairs_of_videos_are_drawn_together():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(60, 8))
    generated = real + rng.normal(0.3, 0.1, real.shape)
    pairs = np.stack([generated, real], axis=1)
    found = interval(pairs, frechet_of_pairs, resamples=200)
    assert found.estimate == frechet_distance(generated, real)
    assert found.low < found.estimate < found.high
    alone = interval(generated, lambda rows: frechet_distance(rows, real), resamples=200)
    assert 2 * (found.high - found.low) < alone.high - alone.low


def test_level_and_seed():
    values = np.random.default_rng(2).normal(size=100)
    narrow, wide = interval(values, level=0.5), interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert interval(values) == interval(values) != interval(values, seed=1)


def test_nan_is_left_out():
    values = np.array([1.0, 2.0, np.nan, 3.0])
    assert interval(values) == interval(values[[0, 1, 3]])
    assert interval(values).count == 3
    one, none = interval(values[:1]), interval(values[2:3])
    assert (one.estimate, one.count) == (1, 1) and np.isnan([one.low, one.high]).all()
    assert none.count == 0 and np.isnan(none.estimate)


def test_paired_differences_are_significant_where_intervals_overlap():
    rng = np.random.default_rng(3)
    hardness = rng.normal(0.5, 0.2, 80)
    better, worse = hardness + 0.02, hardness + rng.normal(0, 0.02, 80)
    assert interval(better).low < interval(worse).high
    found = paired_difference(better, worse)
    assert 0 < found.low < found.estimate < found.high
    assert found.estimate == pytest.approx((better - worse).mean())


def test_a_paired_difference_of_any_statistic():
    rng = np.random.default_rng(4)
    real = rng.normal(size=(60, 4))
    near, far = real + rng.normal(0, 0.1, real.shape), real + rng.normal(1, 1, real.shape)
    nearer, farther = np.stack([near, real], axis=1), np.stack([far, real], axis=1)
    found = paired_difference(farther, nearer, frechet_of_pairs, resamples=100)
    assert found.estimate == frechet_distance(far, real) - frechet_distance(near, real)
    assert 0 < found.low < found.estimate < found.high


def test_arguments_out_of_range():
    for values, arguments in (
        (np.float64(1), {}),
        (np.ones(3), {"level": 1.0}),
        (np.ones(3), {"resamples": 0}),
    ):
        with pytest.raises(ValueError, match="expected rows"):
            interval(values, **arguments)
    with pytest.raises(ValueError, match="same videos"):
        paired_difference(np.ones(3), np.ones(4))
