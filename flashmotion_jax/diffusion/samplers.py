"""Samplers: from noise to clean latents, each one `lax.scan` around the model.

`sample_few_step` serves the FastGenerator: predict the clean latents, noise them again with FRESH
noise to the next level, four times. `sample_multi_step` serves the SlowGenerator: about fifty
steps of a solver along the velocity. The two are not interchangeable: a model distilled for the
first gives other videos under the second.

The model comes as `predict_velocity(latents, timestep)`, in which the pipeline hides the text, the
first frame, the trajectory and guidance. The traced program holds the model once, whatever the
number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.compilation import report
from flashmotion_jax.diffusion import solvers
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, shift_sigmas, velocity_to_x0

PredictVelocity = Callable[[jax.Array, jax.Array], jax.Array]
"""Latents float32 [B, T, h, w, C], timestep float32 in 0..1000, a scalar or one a video [B] ->
velocity, like latents."""

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
      ValueError: The steps are too many, out of range or not falling, or the shift is not above
        0.
    """
    steps = np.asarray(denoising_steps, np.float64)
    in_range = steps.ndim == 1 and np.all((steps > 0) & (steps <= TIMESTEP_SCALE))
    if not (in_range and 1 <= len(steps) <= MAX_FEW_STEPS and np.all(np.diff(steps) < 0)):
        raise ValueError(
            f"denoising steps {list(denoising_steps)}: expected 1 to {MAX_FEW_STEPS} falling "
            "timesteps in (0, 1000], such as 1000, 750, 500, 250"
        )
    _check_shift(shift)
    sigmas = steps / TIMESTEP_SCALE
    return shift_sigmas(sigmas, shift) if warp else sigmas


def draw_noise(keys: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Unit Gaussian noise of each video from its own key.

    Args:
      keys: [B] random keys.
      shape: Of one video's latents, [T, h, w, C].

    Returns:
      float32 [B, T, h, w, C].
    """
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def sample_few_step(
    predict_velocity: PredictVelocity,
    noise: jax.Array,
    sigmas: np.ndarray | jax.Array,
    keys: jax.Array,
    progress: jax.Array | None = None,
) -> jax.Array:
    """Samples as a consistency model: predict x_0, re-noise it to the next level, repeat.

    Not an Euler step, which would keep the old noise. Source: Song et al., "Consistency Models",
    arXiv:2303.01469, algorithm 1, on the path of `flow`.

    Args:
      predict_velocity: The model; see `PredictVelocity`.
      noise: float32 [B, T, h, w, C], unit Gaussian: the latents at `sigmas[0]`.
      sigmas: [N], falling; from `few_step_sigmas`.
      keys: [B], of the fresh noise: step i draws video b with `fold_in(keys[b], i)`, so that a
        video does not depend on its batch.
      progress: Ticket of `compilation.listening`, which hears of each step.

    Returns:
      The last x_0, float32 [B, T, h, w, C].
    """
    # Noise level 0 ends the list: re-noising to it returns x_0 as it is.
    levels = jnp.append(jnp.asarray(sigmas, jnp.float32), 0.0)
    steps = (jnp.arange(len(sigmas)), levels[:-1], levels[1:])

    def step(latents: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        latents = _few_step(predict_velocity, latents, inputs, keys)
        report(progress, inputs[0] + 1, latents)
        return latents, None

    return jax.lax.scan(step, noise, steps)[0]


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
      keys: [B], of the fresh noise, as in `sample_few_step`.

    Returns:
      float32 [B, T, h, w, C]; at the last step, what `sample_few_step` returns.
    """

    def step(latents: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        def denoise(latents: jax.Array) -> jax.Array:
            return _few_step(predict_frozen, latents, inputs, keys)

        return jax.lax.cond(inputs[0] < exit_step, denoise, lambda same: same, latents), None

    steps = (jnp.arange(len(sigmas) - 1), sigmas[:-1], sigmas[1:])
    latents = jax.lax.scan(step, noise, steps)[0]
    sigma = sigmas[exit_step]
    return velocity_to_x0(latents, predict_velocity(latents, TIMESTEP_SCALE * sigma), sigma)


def _few_step(
    predict_velocity: PredictVelocity,
    latents: jax.Array,
    inputs: tuple[jax.Array, ...],
    keys: jax.Array,
) -> jax.Array:
    """Predicts x_0 and noises it to the next level; `inputs` are index, level and next level."""
    index, sigma, next_sigma = inputs
    velocity = predict_velocity(latents, TIMESTEP_SCALE * sigma)
    x0 = velocity_to_x0(latents, velocity, sigma)
    fresh = draw_noise(jax.vmap(jax.random.fold_in, (0, None))(keys, index), latents.shape[1:])
    return add_noise(x0, fresh, next_sigma)


def multi_step_sigmas(num_steps: int, shift: float) -> np.ndarray:
    """The noise levels of a multi-step sampler: evenly spaced, then shifted.

    Source: `UniPCMultistepScheduler.set_timesteps` of diffusers with flow sigmas.

    Args:
      num_steps: N, 1 to 1000.
      shift: Equation (4) of `flow`; 5 for Wan2.2-TI2V-5B, 3 advised at 480p.

    Returns:
      float64 [N + 1], from 1 down to 0.

    Raises:
      ValueError: The number of steps or the shift is out of range.
    """
    if not 1 <= num_steps <= MAX_MULTI_STEPS:
        raise ValueError(f"{num_steps} sampling steps: expected 1 to {MAX_MULTI_STEPS}")
    _check_shift(shift)
    even = np.linspace(1.0, 1.0 / TIMESTEP_SCALE, num_steps + 1)[:-1]
    return np.append(shift_sigmas(even, shift), 0.0)


def multi_step_schedule(
    num_steps: int = 50, shift: float = 5.0, solver: str = "unipc"
) -> solvers.Solver:
    """The steps of a multi-step sampler, as a table that `sample_multi_step` scans over.

    Args:
      num_steps: Calls of the model, 1 to 1000.
      shift: Of the noise levels; see `multi_step_sigmas`.
      solver: "unipc" (upstream's default) or "euler"; see `solvers`.

    Raises:
      ValueError: The solver is unknown, or the number of steps or the shift is out of range.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver {solver!r}: expected one of {', '.join(SOLVERS)}")
    return SOLVERS[solver](multi_step_sigmas(num_steps, shift))


def sample_multi_step(
    predict_velocity: PredictVelocity,
    noise: jax.Array,
    schedule: solvers.Solver,
    progress: jax.Array | None = None,
) -> jax.Array:
    """Samples by solving the flow's differential equation from noise to data.

    Args:
      predict_velocity: The model, with guidance inside; see `PredictVelocity`.
      noise: float32 [B, T, h, w, C], unit Gaussian.
      schedule: From `multi_step_schedule`.
      progress: Ticket of `compilation.listening`, which hears of each step.

    Returns:
      Clean latents, float32 [B, T, h, w, C].
    """

    def step(carry: tuple[jax.Array, ...], inputs: tuple) -> tuple[tuple[jax.Array, ...], None]:
        sample, corrected, previous, before = carry
        index, (timestep, sigma, c, p) = inputs
        x0 = velocity_to_x0(sample, predict_velocity(sample, timestep), sigma)
        corrected = c[0] * corrected + c[1] * x0 + c[2] * previous + c[3] * before
        sample = p[0] * corrected + p[1] * x0 + p[2] * previous
        report(progress, index + 1, sample)
        return (sample, corrected, x0, previous), None

    no_history = jnp.zeros_like(noise)
    carry = (noise, noise, no_history, no_history)
    steps = jnp.arange(len(schedule.timesteps))
    return jax.lax.scan(step, carry, (steps, schedule))[0][0]


def _check_shift(shift: float) -> None:
    if not 0 < shift < np.inf:
        raise ValueError(f"shift {shift}: expected a number above 0, 5 for Wan2.2-TI2V-5B")
