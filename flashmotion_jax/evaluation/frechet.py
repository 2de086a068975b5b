"""The Frechet distance of two sets of features, and features of latents.

A Frechet distance of N videos is larger than that of very many, the more so the more features there
are: sets are compared at the same N, against the same real ones, with N stated.
"""

from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.moments import Moments, distance_of_moments
from flashmotion_jax.runtime.errors import UserError


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """The squared Frechet distance of the Gaussians with the moments of two sets of features.

    |mu_a - mu_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2). The matrix under the root is symmetric and
    positive semi-definite, so its eigenvalues are real whatever the rank: nothing is added to the
    diagonal when there are fewer videos than features.

    Args:
      features_a: [N, D], a row for each video or frame, N at least 2.
      features_b: [M, D], M at least 2.

    Returns:
      The distance in the squared unit of the features, computed in float64, 0 or more.

    Raises:
      UserError: the shapes do not fit, there are too few rows, or a feature is not finite.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule (2017), equation 6.
    """
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UserError(
            f"features of shape {a.shape} and {b.shape}: expected [N, D] and [M, D] with at least "
            "two rows each"
        )
    return distance_of_moments(Moments.of(a), Moments.of(b))


def frechet_of_pairs(pairs: np.ndarray) -> float:
    """The Frechet distance of generated videos to the real ones that they should be like.

    For `bootstrap.interval(np.stack([generated, real], axis=1), frechet_of_pairs)`, which draws a
    video and its real one together. What is in the videos varies much more than how good they are;
    drawn together it cancels, and the interval is several times narrower. Resamples of one side
    alone, which hold some videos twice, are further from the other side than the whole set is: the
    estimate would often lie below its own interval.

    Args:
      pairs: [N, 2, ..., D], the features of each generated video and of the real video with the
        same request; with frames between, those of each frame.

    Returns:
      The distance of all `[N, ...]` on one side to all on the other.

    Raises:
      UserError: the shape is another, or as for `frechet_distance`.
    """
    if pairs.ndim < 3 or pairs.shape[1] != 2:
        raise UserError(
            f"features of shape {pairs.shape}: expected [N, 2, ..., D], generated and real"
        )
    generated, real = (pairs[:, side].reshape(-1, pairs.shape[-1]) for side in range(2))
    return frechet_distance(generated, real)


def latent_features(latents: np.ndarray) -> np.ndarray:
    """Features of the latents of videos: four figures of each channel.

    A VAE's normalised latents are a feature space that no one has tuned for a metric, with channels
    of one scale. The mean of a channel holds colors and contents, its deviation contrast; the root
    mean square of its differences from one latent to the next holds detail (in space) and motion
    (in time), which mean and deviation do not see.

    Args:
      latents: [N, T, h, w, C], normalised; T, h and w at least 2.

    Returns:
      float64 [N, 4 C], such as 64 for 16 channels.

    Raises:
      UserError: the latents have another shape.
    """
    x = np.asarray(latents, np.float64)
    if x.ndim != 5 or min(x.shape[1:4]) < 2:
        raise UserError(
            f"latents of shape {x.shape}: expected [N, T, h, w, C] with T, h and w of at least 2"
        )
    vertical, horizontal = _mean_square(np.diff(x, axis=2)), _mean_square(np.diff(x, axis=3))
    return np.concatenate(
        [
            x.mean(axis=(1, 2, 3)),
            x.std(axis=(1, 2, 3)),
            np.sqrt(vertical + horizontal),
            np.sqrt(_mean_square(np.diff(x, axis=1))),
        ],
        axis=1,
    )


def _mean_square(x_NTHWC: np.ndarray) -> np.ndarray:
    return np.square(x_NTHWC).mean(axis=(1, 2, 3))
