"""Fréchet distances of sets of features, and their intervals over videos.

Everything is float64. The distance of N videos is larger than that of very many, the more so the
more features there are: compare at the same N, against the same real videos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flashmotion_jax.runtime.errors import UserError

Pair = tuple[np.ndarray, np.ndarray]
"""Features `[F, D]` of a generated video, and of the real one of the same conditions."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of rows of features.

    Attributes:
      count: Number of rows.
      mean_D: float64, their mean.
      scatter_DD: float64, the sum of outer products of their deviations from the mean.
    """

    count: int
    mean_D: np.ndarray
    scatter_DD: np.ndarray

    @classmethod
    def none(cls, dim: int) -> Moments:
        """The moments of no rows."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features_ND: np.ndarray) -> Moments:
        """The moments of rows.

        Raises:
          ValueError: There are no rows.
          UserError: One is not finite.
        """
        x = np.asarray(features_ND, np.float64)
        if x.ndim != 2 or not x.size:
            raise ValueError(f"features of shape {x.shape}: expected rows [N, D]")
        if not np.isfinite(x).all():
            raise UserError("features are not finite: look for NaN in the videos or latents")
        centered = x - (mean := x.mean(axis=0))
        return cls(len(x), mean, centered.T @ centered)

    def __add__(self, other: Moments) -> Moments:
        """The moments of the rows of both."""
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
        """Sample covariance: the scatter divided by one less than the count."""
        return self.scatter_DD / (self.count - 1)


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets of features.

    |mu_a - mu_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2). The matrix under the root is symmetric and
    positive semi-definite, so its eigenvalues are real whatever its rank: nothing is added to the
    diagonal if there are fewer videos than features.

    Args:
      features_a: `[N, D]`, a row for each video or frame, N at least 2.
      features_b: `[M, D]`, M at least 2.

    Returns:
      The distance in the squared unit of the features, computed in float64, 0 or more.

    Raises:
      ValueError: The shapes do not fit, or there are too few rows.
      UserError: A feature is not finite.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule (2017), equation 6.
    """
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"features of shape {a.shape} and {b.shape}: expected [N, D] and [M, D] with at least "
            "two rows each"
        )
    return frechet_of_moments(Moments.of(a), Moments.of(b))


def frechet_of_pairs(pairs: np.ndarray) -> float:
    """Fréchet distance between generated videos and the real ones of the same conditions.

    For `bootstrap.interval(np.stack([generated, real], axis=1), frechet_of_pairs)`, which draws a
    video together with its real one. The content of videos varies much more than their quality;
    drawn together it cancels, and the interval is several times narrower. Resamples of one side
    alone, which hold some videos twice, are farther from the other side than the whole set is, so
    the estimate would often lie below its own interval.

    Args:
      pairs: `[N, 2, ..., D]`, features of each generated video and its real one; axes between are
        frames, which are pooled.

    Raises:
      ValueError: The shape is another, or as for `frechet_distance`.
    """
    if pairs.ndim < 3 or pairs.shape[1] != 2:
        raise ValueError(
            f"features of shape {pairs.shape}: expected [N, 2, ..., D], generated and real"
        )
    generated, real = (pairs[:, side].reshape(-1, pairs.shape[-1]) for side in range(2))
    return frechet_distance(generated, real)


def frechet_of_moments(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of the Gaussians with these moments.

    Raises:
      ValueError: One is of fewer than two rows, or they differ in the number of features.
    """
    return _Coupling.of(a, b).distance


def frechet_of_videos(read: Callable[[int], Pair], count: int) -> tuple[float, np.ndarray]:
    """Fréchet distance between generated and real videos, and what each video contributes.

    A bootstrap of the distance itself would take an eigendecomposition per resample, which is hours
    for the 2048 features of FID. To first order, the distance of resampled videos is a mean over
    them, of the distance plus the influence of each video (the infinitesimal jackknife). These are
    the values returned here. A video is drawn together with its real one, so what the two have in
    common cancels.

    Args:
      read: Returns the features of video i. It is called twice for each, so that they need not be
        in memory.
      count: Number of videos N.

    Returns:
      The distance, and float64 `[N]` whose mean it is; NaN if there are fewer than two rows of
      features in all videos together.

    Source: Efron and Tibshirani (1993), chapter 22, for the method; the gradient of the distance
      with respect to the covariances is that of the Bures metric (Bhatia, Jain, Lim, 2019).
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
    influences *= count  # a video's weight in a draw is 1 on average, not 1 / N
    return coupling.distance, coupling.distance + influences - influences.mean()


@dataclass(frozen=True)
class _Coupling:
    """Two Gaussians, their distance, and its gradients with respect to the covariances."""

    a: Moments
    b: Moments
    distance: float
    by_a_DD: np.ndarray
    by_b_DD: np.ndarray

    @classmethod
    def of(cls, a: Moments, b: Moments) -> _Coupling:
        if min(a.count, b.count) < 2 or a.mean_D.shape != b.mean_D.shape:
            raise ValueError(
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
        """Derivative of the distance with respect to the share of a video in all of them."""
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
    """Eigenvalues and eigenvectors of a covariance; eigenvalues that are rounding become 0."""
    # With fewer videos than features, thousands of roots of rounding errors would add up to a
    # distance between equal videos.
    values, vectors = np.linalg.eigh((matrix_DD + matrix_DD.T) / 2)
    rounding = len(values) * np.finfo(float).eps * values.max(initial=0)
    return np.where(values > rounding, values, 0), vectors


def _inverse_root(values_D: np.ndarray) -> np.ndarray:
    """1 / sqrt of the nonzero values, 0 for the others."""
    kept = values_D > 0
    return np.where(kept, 1 / np.sqrt(np.where(kept, values_D, 1)), 0)
