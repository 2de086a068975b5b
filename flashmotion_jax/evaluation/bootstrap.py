"""Confidence intervals by the bootstrap over videos.

A video is always drawn with all that belongs to it, because its frames are not independent. An
interval says how much a number varies with other videos of the same kind and number. The seed of a
training run is not part of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with its interval.

    Attributes:
      estimate: Value for the given videos.
      low: Lower end of the interval.
      high: Upper end of the interval.
      count: Number of videos.
    """

    estimate: float
    low: float
    high: float
    count: int

    def scaled(self, scale: float) -> tuple[float, float, float]:
        """Estimate, lower and upper end in another unit."""
        return scale * self.estimate, scale * self.low, scale * self.high


def interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic of a set of videos with its percentile interval.

    Args:
      values: `[N, ...]`, a row for each video. Rows with a NaN, in which nothing could be measured,
        are left out.
      statistic: Maps rows to a number: the mean, or for instance `frechet_of_pairs`.
      resamples: How many times N rows are drawn.
      level: Share of the resamples inside the interval.
      seed: Seed of the draws.

    Returns:
      The interval. Its ends are NaN for one video, and its estimate, too, for none.

    Raises:
      ValueError: `values` have no rows, or the level or the number of resamples is out of range.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 0 or resamples < 1 or not 0 < level < 1:
        raise ValueError(
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
    """The difference between two systems on the same videos, with its interval.

    The same videos are drawn for both, so what makes a video hard for both cancels. The interval is
    narrower than those of the systems, and it excludes 0 if the difference is significant.

    Args:
      values: `[N, ...]` of one system.
      others: `[N, ...]` of the other, for the same videos in the same order. Videos with a NaN in
        either are left out.
      statistic: As for `interval`, of the rows of one system.
      resamples: As for `interval`.
      level: As for `interval`.
      seed: As for `interval`.

    Returns:
      The statistic of `values` minus that of `others`.

    Raises:
      ValueError: The two differ in shape, or as for `interval`.
    """
    if np.shape(values) != np.shape(others):
        raise ValueError(
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
