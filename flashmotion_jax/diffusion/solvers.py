r"""Solvers of the sampling equation `dx / d sigma = v`, as tables of coefficients.

Every update of a multi-step solver is linear in the last sample `y` and the latest predictions `m`
of the clean latents, with weights that depend only on the noise levels. The weights are therefore
computed once, in float64, and `samplers.multi_step` runs the same step for all solvers. With the
prediction `m_i` made from the sample `x_i` at noise level `sigma_i`, step `i` is

    (1)  y_i     = c_0 y_{i-1} + c_1 m_i + c_2 m_{i-1} + c_3 m_{i-2}      the corrector
    (2)  x_{i+1} = p_0 y_i     + p_1 m_i + p_2 m_{i-1}                    the predictor

The predictor crosses the interval with `q = sigma_{i+1} / sigma_i`, the corrector the interval
before it. Both have the same form: weight `q` for the sample, and `1 - q` split between the
prediction at the end of the interval (`new`, known only to the corrector), at its start, and before
it (`old`):

    (3)  (q,  (1 - q) new,  (1 - q) (1 - new - old),  (1 - q) old)

With `new = old = 0` this is Euler's method, where (1) repeats the predictor. DPM-Solver++ is the
predictor of UniPC without its corrector.

UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion
Models", arXiv:2302.04867, with B(h) = e^h - 1, of order 2, as upstream Wan2.2 uses it
(`wan/utils/fm_solvers_unipc.py`). DPM-Solver++: Lu et al., "DPM-Solver++: Fast Solver for Guided
Sampling of Diffusion Probabilistic Models", arXiv:2211.01095, multistep of order 2 with the
midpoint rule (`wan/utils/fm_solvers.py`).
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import numpy as np

from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE

ArrayT = TypeVar("ArrayT")


class Solver(NamedTuple, Generic[ArrayT]):
    """The N steps of a solver, in float32.

    Attributes:
      timestep: The model's timestep, in 0..1000, [N].
      sigma: Noise level of the model's input, [N].
      correct: The weights c of equation (1), [N, 4].
      predict: The weights p of equation (2), [N, 3].
    """

    timestep: ArrayT
    sigma: ArrayT
    correct: ArrayT
    predict: ArrayT


def euler(sigmas: np.ndarray) -> Solver[np.ndarray]:
    """Euler's method: a straight step along the velocity to the next noise level.

    Args:
      sigmas: Noise levels decreasing from at most 1 to exactly 0, float64 [N + 1].

    Returns:
      N steps. Timesteps are not rounded, as in diffusers' `FlowMatchEulerDiscreteScheduler`.
    """
    zeros = np.zeros(len(sigmas) - 1)
    return _tabulate(sigmas, TIMESTEP_SCALE * sigmas[:-1], zeros, zeros, zeros)


def unipc(sigmas: np.ndarray) -> Solver[np.ndarray]:
    """UniPC of order 2: the predictor uses two predictions, the corrector three.

    The first predictor is of order 1 because there is no history, the last one for stability.

    Args:
      sigmas: Noise levels decreasing from at most 1 to exactly 0, float64 [N + 1].

    Returns:
      N steps. Timesteps are truncated to integers, as in diffusers' `UniPCMultistepScheduler`.
    """
    # The log-SNR is infinite at a noise level of 1; diffusers and Wan2.2 clip to this value.
    sigmas = np.minimum(sigmas, 1.0 - 1e-6)
    timesteps = np.trunc(TIMESTEP_SCALE * sigmas[:-1])
    sigmas, h = _log_snr_steps(sigmas)

    # Arrays over the inner intervals: not the first, and not the one that ends at noise level 0.
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


def dpm_solver(sigmas: np.ndarray) -> Solver[np.ndarray]:
    """DPM-Solver++ of order 2, of order 1 in the first and the last step.

    Args:
      sigmas: Noise levels decreasing from at most 1 to exactly 0, float64 [N + 1].

    Returns:
      N steps. Timesteps are truncated to integers, as in `FlowDPMSolverMultistepScheduler` of
      Wan2.2.
    """
    timesteps = np.trunc(TIMESTEP_SCALE * sigmas[:-1])
    with np.errstate(divide="ignore"):  # the log-SNR is infinite at a noise level of 1
        sigmas, h = _log_snr_steps(sigmas)
    old, none = np.zeros((2, len(sigmas) - 1))
    old[1 : len(sigmas) - 2] = -0.5 * h[1:] / h[:-1]
    # A corrector that repeats the predictor changes nothing.
    return _tabulate(sigmas, timesteps, old, none, old)


def _log_snr_steps(sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The noise levels as float32 knows them, [N + 1], and steps of half their log-SNR, [N - 1].

    Near 1 the log-SNR depends on the last bits, so they are rounded as in the schedulers of Wan2.2
    and diffusers. The step to noise level 0 would be infinite.
    """
    sigmas = sigmas.astype(np.float32).astype(np.float64)
    return sigmas, np.diff(np.log1p(-sigmas[:-1]) - np.log(sigmas[:-1]))


def _tabulate(
    sigmas: np.ndarray,
    timesteps: np.ndarray,
    predict_old: np.ndarray,
    correct_new: np.ndarray,
    correct_old: np.ndarray,
) -> Solver[np.ndarray]:
    """Evaluates equation (3) for the predictor and corrector of every interval."""
    q = sigmas[1:] / sigmas[:-1]
    predict = np.stack([q, (1 - q) * (1 - predict_old), (1 - q) * predict_old], axis=1)
    at_start = 1 - correct_new - correct_old
    correct = np.stack(
        [q, (1 - q) * correct_new, (1 - q) * at_start, (1 - q) * correct_old], axis=1
    )
    # The corrector of an interval runs at the start of the next step; the first has none to run.
    correct = np.concatenate([[[1.0, 0.0, 0.0, 0.0]], correct[:-1]])
    return Solver(*(rows.astype(np.float32) for rows in (timesteps, sigmas[:-1], correct, predict)))
