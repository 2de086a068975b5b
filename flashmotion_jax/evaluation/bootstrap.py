"""Intervals of what was measured on a set of videos, by drawing the videos again.

What is drawn is always a whole video with all that belongs to it: its frames are not independent.
The interval says how much the figure would scatter with other videos of the same kind and number;
the seed of a training run is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from flashmotion_jax.runtime.errors import UserError


class Interval(NamedTuple):
    """A figure with its interval.

    Attributes:
      estimate: of the videos as they are.
      low: the interval's lower end.
      high: its upper end.
      count: N, the videos it is of.
    """

    estimate: float
    low: float
    high: float
    count: int


def interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic of a set of videos, with its percentile interval.

    Args:
      values: [N, ...], all that belongs to a video in its row. Rows with a NaN are left out: what
        was not to be measured in a video.
      statistic: of rows; the mean, or such as `frechet_of_pairs`.
      resamples: how many times N rows are drawn.
      level: share of the resamples inside the interval.
      seed: of the draws.

    Returns:
      The interval. Its ends are NaN for one video, its estimate too for none.

    Raises:
      UserError: `values` have no rows, or the level or the number of resamples is out of range.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 0 or resamples < 1 or not 0 < level < 1:
        raise UserError(
            f"values of shape {values.shape}, resamples={resamples}, level={level}: expected rows "
            "[N, ...], at least one resample and a level between 0 and 1"
        )
    values = values[~np.isnan(values).any(axis=tuple(range(1, values.ndim)))]
    count = len(values)
    if not count:
        return Interval(np.nan, np.nan, np.nan, 0)
    estimate = float(statistic(values))
    if count == 1:
        return Interval(estimate, np.nan, np.nan, 1)
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    drawn = np.array([statistic(values[rows]) for rows in draws])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), count)


def paired_difference(
    values: np.ndarray,
    others: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """How much more one system has than another on the same videos.

    The same videos are drawn for both, so what makes a video hard for both cancels: the interval is
    narrower than two separate ones, and it excludes 0 where the two are told apart.

    Args:
      values: [N, ...] of the one system.
      others: [N, ...] of the other, of the same videos in the same order. Videos with a NaN in
        either are left out.
      statistic: as for `interval`, of the rows of one system.
      resamples: likewise.
      level: likewise.
      seed: likewise.

    Returns:
      The statistic of `values` minus that of `others`.

    Raises:
      UserError: the two have not one shape, or as for `interval`.
    """
    if np.shape(values) != np.shape(others):
        raise UserError(
            f"values of shape {np.shape(values)} and {np.shape(others)}: expected those of the "
            "same videos, in the same order"
        )
    return interval(
        np.stack([values, others], axis=1),
        lambda rows: float(statistic(rows[:, 0]) - statistic(rows[:, 1])),
        resamples=resamples,
        level=level,
        seed=seed,
    )
