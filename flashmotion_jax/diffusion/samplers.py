"""Samplers: from noise to clean latents, one step of a schedule after another.

A `FewStep` schedule serves the FastGenerator: predict the clean latents, noise them again with
FRESH noise to the next level, four times. A `Solver` serves the SlowGenerator: about fifty steps
along the velocity. The two are not interchangeable: a model distilled for the first gives other
videos under the second.

The model comes as `predict_velocity(latents, timestep)`, in which the pipeline hides the text, the
first frame, the trajectory and guidance. `sample` is a loop on the host around one step, which is
compiled once whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.diffusion import solvers
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, shift_sigmas, velocity_to_x0
from flashmotion_jax.runtime.errors import UserError

PredictVelocity = Callable[[jax.Array, jax.Array], jax.Array]
"""Latents float32 [B, T, h, w, C], timestep float32 in 0..1000, a scalar or one a video [B] ->
velocity, like latents."""

State = tuple[jax.Array, ...]
"""What a step hands to the next: the latents first, then the history that a solver needs."""

SOLVERS = {"unipc": solvers.unipc, "euler": solvers.euler}
MAX_FEW_STEPS = 8
MAX_MULTI_STEPS = 1000


def few_step_sigmas(
    denoising_steps: Sequence[float] = (1000, 750, 500, 250), shift: float = 5.0, warp: bool = True
) -> np.ndarray:
    """The noise levels of a few-step generator.

    FlashMotion's stages train on the warped grid; the published script that samples from the base
    Turbo model uses the raw one.

    Args:
      denoising_steps: 1 to 8 strictly falling timesteps in (0, 1000].
      shift: Of the warped grid, equation (4) of `flow`.
      warp: Whether the steps are shifted: 1000, 750, 500, 250 become 1000, 937.5, 833.3, 625.

    Returns:
      float64 [N].

    Raises:
      UserError: The steps are too many, out of range or not falling, or the shift is not above
        0.
    """
    steps = np.asarray(denoising_steps, np.float64)
    in_range = steps.ndim == 1 and np.all((steps > 0) & (steps <= TIMESTEP_SCALE))
    if not (in_range and 1 <= len(steps) <= MAX_FEW_STEPS and np.all(np.diff(steps) < 0)):
        raise UserError(
            f"denoising steps {list(denoising_steps)}: expected 1 to {MAX_FEW_STEPS} falling "
            "timesteps in (0, 1000], such as 1000, 750, 500, 250"
        )
    _check_shift(shift)
    sigmas = steps / TIMESTEP_SCALE
    return shift_sigmas(sigmas, shift) if warp else sigmas


class FewStep(NamedTuple, Generic[solvers.ArrayT]):
    """The N steps of the few-step sampler, one entry each.

    Attributes:
      index: int32 [N], which fresh noise is drawn.
      sigma: float32 [N], the noise level of the latents the model sees.
      next_sigma: float32 [N], the one after the step; at 0 the prediction stays as it is.
    """

    index: solvers.ArrayT
    sigma: solvers.ArrayT
    next_sigma: solvers.ArrayT


def few_step_schedule(sigmas: np.ndarray) -> FewStep[np.ndarray]:
    """The steps through falling noise levels `[N]`, from `few_step_sigmas`, and then to 0."""
    levels = np.append(sigmas, 0.0).astype(np.float32)
    return FewStep(np.arange(len(sigmas), dtype=np.int32), levels[:-1], levels[1:])


def draw_noise(keys: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Unit Gaussian noise of each video from its own key.

    Args:
      keys: [B] random keys.
      shape: Of one video's latents, [T, h, w, C].

    Returns:
      float32 [B, T, h, w, C].
    """
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def sample(
    advance: Callable[[State, Any], State],
    noise: jax.Array,
    schedule: FewStep[np.ndarray] | solvers.Solver[np.ndarray],
    progress: Callable[[int], None] | None = None,
) -> jax.Array:
    """Runs all steps, on the host: a callback in a program would keep it out of jax's cache.

    Args:
      advance: `few_step` or `multi_step` around a model, compiled or not; gets the state and one
        row of the schedule.
      noise: float32 [B, T, h, w, C], unit Gaussian.
      schedule: From `few_step_schedule` or `multi_step_schedule`.
      progress: Called with the number of finished steps after each; what it raises ends the loop.

    Returns:
      Clean latents, float32 [B, T, h, w, C].
    """
    state: State = (noise,)
    if isinstance(schedule, solvers.Solver):
        no_history = jnp.zeros_like(noise)
        state = (noise, noise, no_history, no_history)
    for index in range(len(schedule.sigma)):
        state = advance(state, jax.tree.map(lambda rows, i=index: rows[i], schedule))
        if progress is not None:
            jax.block_until_ready(state)
            progress(index + 1)
    return state[0]


def sample_to_exit(
    predict_frozen: PredictVelocity,
    predict_velocity: PredictVelocity,
    noise: jax.Array,
    sigmas: jax.Array,
    exit_step: jax.Array,
    keys: jax.Array,
) -> jax.Array:
    """The x_0 that the few-step sampler predicts at one of its steps, for training.

    Args:
      predict_frozen: The model without a gradient, for the steps before.
      predict_velocity: The model at the step itself.
      noise: float32 [B, T, h, w, C], unit Gaussian: the latents at `sigmas[0]`.
      sigmas: float32 [N], falling.
      exit_step: Integer scalar in [0, N).
      keys: [B], of the fresh noise, as in `few_step`.

    Returns:
      float32 [B, T, h, w, C]; at the last step, what the few-step sampler returns.
    """

    def step(latents: jax.Array, row: FewStep[jax.Array]) -> tuple[jax.Array, None]:
        def denoise(latents: jax.Array) -> jax.Array:
            return few_step(predict_frozen, latents, row, keys)

        return jax.lax.cond(row.index < exit_step, denoise, lambda same: same, latents), None

    steps = FewStep(jnp.arange(len(sigmas) - 1), sigmas[:-1], sigmas[1:])
    latents = jax.lax.scan(step, noise, steps)[0]
    sigma = sigmas[exit_step]
    return velocity_to_x0(latents, predict_velocity(latents, TIMESTEP_SCALE * sigma), sigma)


def few_step(
    predict_velocity: PredictVelocity, latents: jax.Array, row: FewStep[jax.Array], keys: jax.Array
) -> jax.Array:
    """A step of consistency sampling: predict x_0 and noise it anew to the next level.

    Not an Euler step, which would keep the old noise. Source: Song et al., "Consistency Models",
    arXiv:2303.01469, algorithm 1, on the path of `flow`.

    Args:
      predict_velocity: The model; see `PredictVelocity`.
      latents: float32 [B, T, h, w, C] at the noise level of the step.
      row: The step, scalars.
      keys: [B], of the fresh noise: step i draws video b with `fold_in(keys[b], i)`, so that a
        video does not depend on its batch.

    Returns:
      The latents of the next step, float32 [B, T, h, w, C]; of the last one x_0.
    """
    velocity = predict_velocity(latents, TIMESTEP_SCALE * row.sigma)
    x0 = velocity_to_x0(latents, velocity, row.sigma)
    fold = jax.vmap(jax.random.fold_in, (0, None))
    return add_noise(x0, draw_noise(fold(keys, row.index), latents.shape[1:]), row.next_sigma)


def multi_step_sigmas(num_steps: int, shift: float) -> np.ndarray:
    """The noise levels of a multi-step sampler: evenly spaced, then shifted.

    Source: `UniPCMultistepScheduler.set_timesteps` of diffusers with flow sigmas.

    Args:
      num_steps: N, 1 to 1000.
      shift: Equation (4) of `flow`; 5 for Wan2.2-TI2V-5B, 3 advised at 480p.

    Returns:
      float64 [N + 1], from 1 down to 0.

    Raises:
      UserError: The number of steps or the shift is out of range.
    """
    if not 1 <= num_steps <= MAX_MULTI_STEPS:
        raise UserError(f"{num_steps} sampling steps: expected 1 to {MAX_MULTI_STEPS}")
    _check_shift(shift)
    even = np.linspace(1.0, 1.0 / TIMESTEP_SCALE, num_steps + 1)[:-1]
    return np.append(shift_sigmas(even, shift), 0.0)


def multi_step_schedule(
    num_steps: int = 50, shift: float = 5.0, solver: str = "unipc"
) -> solvers.Solver[np.ndarray]:
    """The steps of a multi-step sampler, as a table of which `multi_step` takes a row.

    Args:
      num_steps: Calls of the model, 1 to 1000.
      shift: Of the noise levels; see `multi_step_sigmas`.
      solver: "unipc" (upstream's default) or "euler"; see `solvers`.

    Raises:
      UserError: The solver is unknown, or the number of steps or the shift is out of range.
    """
    if solver not in SOLVERS:
        raise UserError(f"solver {solver!r}: expected one of {', '.join(SOLVERS)}")
    return SOLVERS[solver](multi_step_sigmas(num_steps, shift))


def multi_step(
    predict_velocity: PredictVelocity, state: State, row: solvers.Solver[jax.Array]
) -> State:
    """A step of a solver along the flow's differential equation, from noise to data.

    Args:
      predict_velocity: The model, with guidance inside; see `PredictVelocity`.
      state: Sample, corrected sample, and the last two predictions, float32 [B, T, h, w, C] each.
      row: The step: scalars, and the weights of equations (1) and (2) of `solvers`.

    Returns:
      The state of the next step.
    """
    sample, corrected, previous, before = state
    c, p = row.correct, row.predict
    x0 = velocity_to_x0(sample, predict_velocity(sample, row.timestep), row.sigma)
    corrected = c[0] * corrected + c[1] * x0 + c[2] * previous + c[3] * before
    return p[0] * corrected + p[1] * x0 + p[2] * previous, corrected, x0, previous


def _check_shift(shift: float) -> None:
    if not 0 < shift < np.inf:
        raise UserError(f"shift {shift}: expected a number above 0, 5 for Wan2.2-TI2V-5B")
