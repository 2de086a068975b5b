"""Samplers: from noise to clean latents, one step of a schedule at a time.

A `FewStep` schedule is for the FastGenerator: predict the clean latents, add fresh noise at the
next level, and repeat, four times. A `Solver` is for the SlowGenerator: about fifty steps along the
velocity. The two are not interchangeable: a model that was distilled for the first produces
different videos with the second.

The model is a function `predict_velocity(latents, timestep)` that already contains the text, the
first frame, the trajectory and guidance. `sample` loops on the host over one step, which is
compiled once for any number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.config import FewStepConfig, SolverGrid
from flashmotion_jax.diffusion import solvers
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, shift_sigmas, velocity_to_x0
from flashmotion_jax.diffusion.timesteps import round_timesteps
from flashmotion_jax.runtime.errors import UserError

PredictVelocity = Callable[[jax.Array, jax.Array], jax.Array]
"""`(latents, timestep) -> velocity`, float32 [B, T, h, w, C]; timestep 0..1000, scalar or [B]."""

State = tuple[jax.Array, ...]
"""State carried between steps: the latents, followed by the history of a solver."""

SOLVERS = {"unipc": solvers.unipc, "dpm++": solvers.dpm_solver, "euler": solvers.euler}

#: First and last of N + 1 evenly spaced noise levels, by grid and solver.
SOLVER_GRIDS = {
    # Wan2.2: the schedule of `wan/utils/fm_solvers_unipc.py`, whose first level is float32, and
    # `get_sampling_sigmas` of `wan/utils/fm_solvers.py`.
    "wan": {"unipc": (float(np.float32(0.999)), 0.0), "dpm++": (1.0, 0.0), "euler": (1.0, 0.0)},
    # diffusers 0.42; up to 0.35, its UniPC had Wan's levels.
    "diffusers": {"unipc": (1.0, 0.001), "dpm++": (0.999, 0.0), "euler": (1.0, 0.001)},
}
MAX_FEW_STEPS = 8
MAX_MULTI_STEPS = 1000


def few_step_sigmas(
    denoising_steps: Sequence[float] = (1000, 750, 500, 250), shift: float = 5.0, warp: bool = True
) -> np.ndarray:
    """Computes the noise levels of a few-step generator.

    FlashMotion trains on the warped steps; the published inference script of the base Turbo model
    uses them unchanged.

    Args:
      denoising_steps: 1 to 8 strictly decreasing timesteps in (0, 1000].
      shift: Shift of the warped steps, equation (4) of `flow`.
      warp: Whether to shift the steps: 1000, 750, 500, 250 become 1000, 937.5, 833.3, 625.

    Returns:
      float64 [N].

    Raises:
      UserError: There are too many steps, they are out of range or not decreasing, or the shift is
        not positive.
    """
    steps = np.asarray(denoising_steps, np.float64)
    in_range = steps.ndim == 1 and np.all((steps > 0) & (steps <= TIMESTEP_SCALE))
    if not (in_range and 1 <= len(steps) <= MAX_FEW_STEPS and np.all(np.diff(steps) < 0)):
        raise UserError(
            f"denoising steps {list(denoising_steps)}: expected 1 to {MAX_FEW_STEPS} decreasing "
            "timesteps in (0, 1000], such as 1000, 750, 500, 250"
        )
    _check_shift(shift)
    sigmas = steps / TIMESTEP_SCALE
    return shift_sigmas(sigmas, shift) if warp else sigmas


class FewStep(NamedTuple, Generic[solvers.ArrayT]):
    """The N steps of the few-step sampler.

    Attributes:
      index: Number of the step, which selects its fresh noise, int32 [N].
      timestep: The model's timestep, in 0..1000, float32 [N].
      sigma: Noise level of the model's input, float32 [N].
      next_sigma: Noise level after the step, float32 [N]; 0 returns the prediction without noise.
    """

    index: solvers.ArrayT
    timestep: solvers.ArrayT
    sigma: solvers.ArrayT
    next_sigma: solvers.ArrayT


def few_step_schedule(config: FewStepConfig) -> FewStep[np.ndarray]:
    """Builds the steps through the noise levels of `few_step_sigmas`, ending at 0.

    Raises:
      UserError: See `few_step_sigmas`.
    """
    sigmas = few_step_sigmas(config.denoising_steps, config.shift, config.warp_denoising_steps)
    levels = np.append(sigmas, 0.0).astype(np.float32)
    timesteps = round_timesteps(TIMESTEP_SCALE * levels[:-1], config.timestep_rounding)
    return FewStep(np.arange(len(sigmas), dtype=np.int32), timesteps, levels[:-1], levels[1:])


def noise_keys(seeds: Sequence[int]) -> jax.Array:
    """Makes the random key of each video from all 64 bits of its seed.

    Args:
      seeds: One per video; negative ones count as their two's complement.

    Returns:
      Random keys, [B]. Those of seeds from 0 to 2^32 - 1 are `jax.random.key(seed)`.
    """

    def key(seed: int) -> jax.Array:
        # Without 64-bit types, `jax.random.key` drops the upper half of a seed.
        upper, lower = divmod(seed % 2**64, 2**32)
        key = jax.random.key(np.uint32(lower))
        return jax.random.fold_in(key, np.uint32(upper)) if upper else key

    return jnp.stack([key(seed) for seed in seeds])


def draw_noise(keys: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Draws unit Gaussian noise for each video from its own key.

    Args:
      keys: Random keys, [B].
      shape: Shape of one video's latents, (T, h, w, C).

    Returns:
      float32 [B, T, h, w, C].
    """
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def sample(
    advance: Callable[[State, Any], State],
    noise: jax.Array,
    schedule: FewStep[np.ndarray] | solvers.Solver[np.ndarray],
    progress: Callable[[int], None] | None = None,
    on_state: Callable[[int, State], None] | None = None,
) -> jax.Array:
    """Runs all steps of a schedule.

    Args:
      advance: `(state, row of the schedule) -> state`: `few_step` or `multi_step` with a model.
      noise: Unit Gaussian noise, float32 [B, T, h, w, C].
      schedule: From `few_step_schedule` or `multi_step_schedule`.
      progress: Called after each step with the number of finished steps. An exception that it
        raises ends the loop.
      on_state: Likewise, with the number of finished steps and the state; see `predicted_x0`.

    Returns:
      Clean latents, float32 [B, T, h, w, C].
    """
    state: State = (noise,)
    if isinstance(schedule, solvers.Solver):
        no_history = jnp.zeros_like(noise)
        state = (noise, noise, no_history, no_history)
    # A host loop: a program with a callback inside cannot be stored in JAX's compilation cache.
    for index in range(len(schedule.sigma)):
        state = advance(state, jax.tree.map(lambda rows, i=index: rows[i], schedule))
        if progress is not None:
            jax.block_until_ready(state)
            progress(index + 1)
        if on_state is not None:
            on_state(index + 1, state)
    return state[0]


def sample_to_exit(
    predict_frozen: PredictVelocity,
    predict_velocity: PredictVelocity,
    noise: jax.Array,
    schedule: FewStep[jax.Array],
    exit_step: jax.Array,
    keys: jax.Array,
) -> jax.Array:
    """Runs the few-step sampler up to a step and returns its prediction of x_0, for training.

    Args:
      predict_frozen: The model without gradients, for the steps before `exit_step`.
      predict_velocity: The model with gradients, for `exit_step` itself.
      noise: Unit Gaussian noise, the latents of the first step, float32 [B, T, h, w, C].
      schedule: The N steps.
      exit_step: Integer scalar in [0, N).
      keys: Random keys of the fresh noise, [B]; see `few_step`.

    Returns:
      float32 [B, T, h, w, C]; for the last step, the output of the few-step sampler.
    """

    def step(latents: jax.Array, row: FewStep[jax.Array]) -> tuple[jax.Array, None]:
        def denoise(latents: jax.Array) -> jax.Array:
            return few_step(predict_frozen, latents, row, keys)

        # A cond in a scan, not a while loop: the scan is differentiable, and skipped steps are
        # free.
        return jax.lax.cond(row.index < exit_step, denoise, lambda same: same, latents), None

    steps = jax.tree.map(lambda rows: rows[:-1], schedule)
    latents = jax.lax.scan(step, noise, steps)[0]
    exit_row = jax.tree.map(lambda rows: rows[exit_step], schedule)
    velocity = predict_velocity(latents, exit_row.timestep)
    return velocity_to_x0(latents, velocity, exit_row.sigma)


def few_step(
    predict_velocity: PredictVelocity, latents: jax.Array, row: FewStep[jax.Array], keys: jax.Array
) -> jax.Array:
    """One step of consistency sampling: predict x_0, then add fresh noise at the next level.

    This is not an Euler step, which would keep the old noise.

    Args:
      predict_velocity: The model; see `PredictVelocity`.
      latents: Latents at the noise level of the step, float32 [B, T, h, w, C].
      row: The step, as scalars.
      keys: Random keys, [B]. Step i draws the noise of video b from `fold_in(keys[b], i)`, so that
        a video does not depend on the rest of its batch.

    Returns:
      Latents at the next noise level, float32 [B, T, h, w, C]; x_0 after the last step.

    Source: Song et al., "Consistency Models", arXiv:2303.01469, algorithm 1, on the path of `flow`.
    """
    velocity = predict_velocity(latents, row.timestep)
    x0 = velocity_to_x0(latents, velocity, row.sigma)
    return add_noise(x0, _fresh_noise(row, keys, latents.shape[1:]), row.next_sigma)


def predicted_x0(
    state: State, row: FewStep[jax.Array] | solvers.Solver[jax.Array], keys: jax.Array
) -> jax.Array:
    """The model's prediction of x_0 in a step, from the state after it.

    The few-step sampler does not keep it: the step's noise is drawn again and taken away, with an
    error of rounding. So the program of a step is the same whether or not anyone asks.

    Args:
      state: The state after the step.
      row: The step, as scalars.
      keys: See `few_step`.

    Returns:
      float32 [B, T, h, w, C].
    """
    if isinstance(row, solvers.Solver):
        return state[2]
    noise = _fresh_noise(row, keys, state[0].shape[1:])
    return (state[0] - row.next_sigma * noise) / (1 - row.next_sigma)


def _fresh_noise(row: FewStep[jax.Array], keys: jax.Array, shape: Sequence[int]) -> jax.Array:
    """The noise that a step adds, float32 [B, *shape]."""
    return draw_noise(jax.vmap(jax.random.fold_in, (0, None))(keys, row.index), shape)


def multi_step_sigmas(
    num_steps: int, shift: float, solver: str = "unipc", grid: SolverGrid = "wan"
) -> np.ndarray:
    """Computes the noise levels of a multi-step sampler: evenly spaced, then shifted.

    Args:
      num_steps: Number of steps N, 1 to 1000.
      shift: Shift of equation (4) of `flow`: 5 for Wan2.2-TI2V-5B, 3 recommended at 480p.
      solver: A name in `SOLVERS`.
      grid: "wan" for the levels of Wan2.2's own code, "diffusers" for those of diffusers 0.42.

    Returns:
      float64 [N + 1], from about 1 down to 0.

    Raises:
      UserError: The number of steps or the shift is out of range.
    """
    if not 1 <= num_steps <= MAX_MULTI_STEPS:
        raise UserError(f"{num_steps} sampling steps: expected 1 to {MAX_MULTI_STEPS}")
    _check_shift(shift)
    even = np.linspace(*SOLVER_GRIDS[grid][solver], num_steps + 1)[:-1]
    return np.append(shift_sigmas(even, shift), 0.0)


def multi_step_schedule(
    num_steps: int = 50,
    shift: float = 5.0,
    solver: str = "unipc",
    grid: SolverGrid = "wan",
) -> solvers.Solver[np.ndarray]:
    """Builds the schedule of a multi-step sampler; `multi_step` runs one row of it.

    Args:
      num_steps: Number of steps, 1 to 1000.
      shift: Shift of the noise levels; see `multi_step_sigmas`.
      solver: "unipc" (the default of Wan2.2), "dpm++" (its other solver) or "euler".
      grid: See `multi_step_sigmas`.

    Raises:
      UserError: The solver is unknown, or the number of steps or the shift is out of range.
    """
    if solver not in SOLVERS:
        raise UserError(f"solver {solver!r}: expected one of {', '.join(SOLVERS)}")
    return SOLVERS[solver](multi_step_sigmas(num_steps, shift, solver, grid))


def multi_step(
    predict_velocity: PredictVelocity, state: State, row: solvers.Solver[jax.Array]
) -> State:
    """One step of a solver of the flow's differential equation, from noise to data.

    Args:
      predict_velocity: The model, including guidance; see `PredictVelocity`.
      state: Sample, corrected sample, and the last two predictions, float32 [B, T, h, w, C] each.
      row: The step: scalars, and the weights of equations (1) and (2) of `solvers`.

    Returns:
      The state after the step.
    """
    sample, corrected, previous, before = state
    c, p = row.correct, row.predict
    x0 = velocity_to_x0(sample, predict_velocity(sample, row.timestep), row.sigma)
    corrected = c[0] * corrected + c[1] * x0 + c[2] * previous + c[3] * before
    return p[0] * corrected + p[1] * x0 + p[2] * previous, corrected, x0, previous


def _check_shift(shift: float) -> None:
    if not 0 < shift < np.inf:
        raise UserError(f"shift={shift}; expected a positive number, 5 for Wan2.2-TI2V-5B")
