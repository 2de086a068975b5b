r"""Solvers of the sampling equation `dx / d sigma = v`, each as a table of coefficients.

Every update of a multi-step solver is linear in the last sample `y` and the latest predictions
`m` of the clean latents, and its weights depend on the noise levels alone. So they are computed
here, once, in float64, and `samplers.multi_step` is the same step for all solvers. Step
`i`, with the prediction `m_i` made from the sample `x_i` at noise level `sigma_i`, is

    (1)  y_i     = c_0 y_{i-1} + c_1 m_i + c_2 m_{i-1} + c_3 m_{i-2}      the corrector
    (2)  x_{i+1} = p_0 y_i     + p_1 m_i + p_2 m_{i-1}                    the predictor

Both cross an interval with `q = sigma_{i+1} / sigma_i` (the corrector crosses the one before it)
and share a shape: `q` for the sample, and `1 - q` divided among the newest prediction (`new`, known
to the corrector only), the one at the start of the interval, and the one before (`old`):

    (3)  (q,  (1 - q) new,  (1 - q) (1 - new - old),  (1 - q) old)

With `new = old = 0` this is Euler's method, for which (1) repeats the predictor.

UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion
Models", arXiv:2302.04867, with B(h) = e^h - 1, of order 2, as upstream Wan2.2 uses it
(`wan/utils/fm_solvers_unipc.py`).
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import numpy as np

from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE

ArrayT = TypeVar("ArrayT")


class Solver(NamedTuple, Generic[ArrayT]):
    """The N steps of a solver, one row each: float32.

    Attributes:
      timestep: [N], what the model is told, on the scale of 0 to 1000.
      sigma: [N], the noise level of the sample the model sees.
      correct: [N, 4], the weights c of equation (1).
      predict: [N, 3], the weights p of equation (2).
    """

    timestep: ArrayT
    sigma: ArrayT
    correct: ArrayT
    predict: ArrayT


def euler(sigmas: np.ndarray) -> Solver[np.ndarray]:
    """Euler's method: straight on along the velocity to the next noise level.

    Args:
      sigmas: float64 [N + 1], falling from at most 1 to exactly 0.

    Returns:
      N steps, timesteps not rounded, as diffusers' `FlowMatchEulerDiscreteScheduler` has them.
    """
    zeros = np.zeros(len(sigmas) - 1)
    return _tabulate(sigmas, TIMESTEP_SCALE * sigmas[:-1], zeros, zeros, zeros)


def unipc(sigmas: np.ndarray) -> Solver[np.ndarray]:
    """UniPC of order 2: a predictor through two predictions, a corrector through three.

    The first and the last predictor are of order 1, for want of a history and for stability.

    Args:
      sigmas: float64 [N + 1], falling from at most 1 to exactly 0.

    Returns:
      N steps, timesteps cut to whole numbers, as diffusers' `UniPCMultistepScheduler` has them.
    """
    # At a noise level of 1 the log-SNR is infinite; diffusers and upstream stop this far from it.
    sigmas = np.minimum(sigmas, 1.0 - 1e-6)
    timesteps = np.trunc(TIMESTEP_SCALE * sigmas[:-1])
    # The log-SNR near 1 depends on the last bits: round as the schedulers that are matched do.
    sigmas = sigmas.astype(np.float32).astype(np.float64)
    half_log_snr = np.log1p(-sigmas[:-1]) - np.log(sigmas[:-1])
    h = np.diff(half_log_snr)

    # Arrays over the intervals that have one before them and do not end at noise level 0.
    previous, current = h[:-1], h[1:]
    r = -previous / current
    b1 = -1.0 / current - 1.0 / np.expm1(-current)
    b2 = -2.0 * b1 / current - 1.0 / np.expm1(-current)
    rho = (b1 - b2) / (1.0 - r)

    inner = slice(1, len(sigmas) - 2)
    predict_old, correct_new, correct_old = np.zeros((3, len(sigmas) - 1))
    predict_old[inner] = 0.5 / r
    correct_new[0] = 0.5
    correct_new[inner] = b1 - rho
    correct_old[inner] = rho / r
    return _tabulate(sigmas, timesteps, predict_old, correct_new, correct_old)


def _tabulate(
    sigmas: np.ndarray,
    timesteps: np.ndarray,
    predict_old: np.ndarray,
    correct_new: np.ndarray,
    correct_old: np.ndarray,
) -> Solver[np.ndarray]:
    """Equation (3) for every interval: its predictor's weights and its corrector's."""
    q = sigmas[1:] / sigmas[:-1]
    predict = np.stack([q, (1 - q) * (1 - predict_old), (1 - q) * predict_old], axis=1)
    at_start = 1 - correct_new - correct_old
    correct = np.stack(
        [q, (1 - q) * correct_new, (1 - q) * at_start, (1 - q) * correct_old], axis=1
    )
    # The corrector of an interval runs in the step after it; the first step keeps its sample.
    correct = np.concatenate([[[1.0, 0.0, 0.0, 0.0]], correct[:-1]])
    return Solver(*(rows.astype(np.float32) for rows in (timesteps, sigmas[:-1], correct, predict)))
