"""Means and covariances of features that come a video at a time, and the Frechet distance of them.

Everything is float64. A square root of a covariance is taken by the eigenvalues of a symmetric
matrix, which are real whatever the rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flashmotion_jax.runtime.errors import UserError

Pair = tuple[np.ndarray, np.ndarray]
"""The features [F, D] of a generated video, and those of the real one with the same request."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter (the sum of squared deviations) of rows.

    Attributes:
      count: of the rows.
      mean_D: float64.
      scatter_DD: float64.
    """

    count: int
    mean_D: np.ndarray
    scatter_DD: np.ndarray

    @classmethod
    def none(cls, dim: int) -> Moments:
        """Those of no rows."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features_ND: np.ndarray) -> Moments:
        """Those of rows.

        Raises:
          UserError: there are none, or one is not finite.
        """
        x = np.asarray(features_ND, np.float64)
        if x.ndim != 2 or not x.size:
            raise UserError(f"features of shape {x.shape}: expected rows [N, D]")
        if not np.isfinite(x).all():
            raise UserError("features are not finite: look for NaN in the videos or latents")
        centred = x - (mean := x.mean(axis=0))
        return cls(len(x), mean, centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        """Those of the rows of both."""
        count = self.count + other.count
        if not count:
            return self
        step = other.mean_D - self.mean_D
        share = other.count / count
        between = self.count * share * np.outer(step, step)
        return Moments(
            count, self.mean_D + share * step, self.scatter_DD + other.scatter_DD + between
        )

    @property
    def covariance(self) -> np.ndarray:
        """Of a sample: the scatter by one less than the count."""
        return self.scatter_DD / (self.count - 1)


def distance_of_moments(a: Moments, b: Moments) -> float:
    """The squared Frechet distance of the Gaussians with these moments.

    Raises:
      UserError: one is of fewer than two rows, or they have another number of features.
    """
    return _Coupling.of(a, b).distance


def distance_of_videos(read: Callable[[int], Pair], count: int) -> tuple[float, np.ndarray]:
    """The Frechet distance of generated videos to real ones, and what each video adds to it.

    Drawing the videos again and computing the distance anew would take an eigen-decomposition for
    each draw, hours for FID's 2048 features. To first order a distance of drawn videos is a mean
    over them: of the distance plus the influence that each of them has on it (the infinitesimal
    jackknife), which these values are. A video is drawn with its real one, so what the two have in
    common cancels.

    Args:
      read: the features of video i; called twice for each, so that they need not be in memory.
      count: N videos.

    Returns:
      The distance, and float64 [N] whose mean it is. Two rows of frames, all videos together, are
      the least that has a distance; it is NaN below.

    Source: Efron and Tibshirani (1993), chapter 22, for the method; the gradient of the distance
      by the covariances is that of the Bures metric (Bhatia, Jain, Lim, 2019).
    """
    a = b = None
    for i in range(count):
        generated, real = (Moments.of(features) for features in read(i))
        a = generated if a is None else a + generated
        b = real if b is None else b + real
    if a is None or b is None or min(a.count, b.count) < 2:
        return np.nan, np.full(count, np.nan)
    coupling = _Coupling.of(a, b)
    influences = np.array([coupling.influence(*read(i)) for i in range(count)])
    influences *= count  # of a draw's mean weight of 1
    return coupling.distance, coupling.distance + influences - influences.mean()


@dataclass(frozen=True)
class _Coupling:
    """Two Gaussians, their distance, and its gradients by the covariances."""

    a: Moments
    b: Moments
    distance: float
    by_a_DD: np.ndarray
    by_b_DD: np.ndarray

    @classmethod
    def of(cls, a: Moments, b: Moments) -> _Coupling:
        if min(a.count, b.count) < 2 or a.mean_D.shape != b.mean_D.shape:
            raise UserError(
                f"moments of {a.count} and {b.count} rows with {a.mean_D.shape} and "
                f"{b.mean_D.shape} features: expected at least two rows and the same features"
            )
        cov_a, cov_b = a.covariance, b.covariance
        values_a, vectors_a = _eigen(cov_a)
        root_a = (vectors_a * np.sqrt(values_a)) @ vectors_a.T
        values, vectors = _eigen(root_a @ cov_b @ root_a)
        difference = a.mean_D - b.mean_D
        distance = difference @ difference + np.trace(cov_a) + np.trace(cov_b)
        distance = max(float(distance - 2 * np.sqrt(values).sum()), 0.0)
        inverse_a = (vectors_a * _inverse_root(values_a)) @ vectors_a.T
        shared = (vectors * np.sqrt(values)) @ vectors.T
        inverse_shared = (vectors * _inverse_root(values)) @ vectors.T
        one = np.eye(len(cov_a))
        return cls(
            a,
            b,
            distance,
            one - inverse_a @ shared @ inverse_a,
            one - root_a @ inverse_shared @ root_a,
        )

    def influence(self, generated_FD: np.ndarray, real_FD: np.ndarray) -> float:
        """The change of the distance by the weight of a video, as a share of all videos'."""
        shift = 2 * (self.a.mean_D - self.b.mean_D)
        total = 0.0
        for moments, gradient, sign, rows in (
            (self.a, self.by_a_DD, 1, generated_FD),
            (self.b, self.by_b_DD, -1, real_FD),
        ):
            x = np.asarray(rows, np.float64) - moments.mean_D
            of_mean = sign * (x @ shift).sum() / moments.count
            of_covariance = np.einsum("fd,fd->", x @ gradient, x) / (moments.count - 1)
            share = len(x) / moments.count
            total += of_mean + of_covariance - share * (gradient * moments.covariance).sum()
        return float(total)


def _eigen(matrix_DD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, those that are rounding as 0, and vectors.

    There are fewer videos than features as often as not. Roots of rounding, thousands of them,
    would add up to a distance of equal videos.
    """
    values, vectors = np.linalg.eigh((matrix_DD + matrix_DD.T) / 2)
    rounding = len(values) * np.finfo(float).eps * values.max(initial=0)
    return np.where(values > rounding, values, 0), vectors


def _inverse_root(values_D: np.ndarray) -> np.ndarray:
    """1 / sqrt of what is not 0, 0 of the rest."""
    kept = values_D > 0
    return np.where(kept, 1 / np.sqrt(np.where(kept, values_D, 1)), 0)
