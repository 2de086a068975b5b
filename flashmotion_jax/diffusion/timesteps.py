"""Timesteps: those of training, and how they are rounded before a model is told them."""

from __future__ import annotations

from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.config import TimestepRounding
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, shift_sigmas
from flashmotion_jax.runtime.errors import UserError


def draw_timesteps(
    keys_B: jax.Array, *, shift: float = 5.0, low: float = 0.0, high: float = 1000.0
) -> jax.Array:
    """Draws a timestep for each video from its own key, the same for all its latent frames.

    Timesteps are uniform integers in [0, 1000), shifted by equation (4) of `flow`, then clipped.

    Args:
      keys_B: Random keys, [B].
      shift: 5 for Wan2.2-TI2V-5B; 1 keeps the distribution uniform.
      low: Lower bound; 20 for distribution matching.
      high: Upper bound; 980 for distribution matching.

    Returns:
      float32 [B] in [low, high].

    Raises:
      UserError: The shift is not positive, or the bounds are not increasing in 0..1000.

    Source: The training shift is that of Wan2.2; integers and clipping follow `model/dmd.py` of
      Self Forcing.
    """
    if not (shift > 0 and 0 <= low < high <= TIMESTEP_SCALE):
        raise UserError(
            f"timesteps with shift={shift}, low={low}, high={high}: expected a shift above 0 and "
            f"0 <= low < high <= {TIMESTEP_SCALE:g}, for instance 5, 20 and 980"
        )
    drawn_B = jax.vmap(lambda key: jax.random.randint(key, (), 0, int(TIMESTEP_SCALE)))(keys_B)
    sigmas_B = shift_sigmas(drawn_B.astype(jnp.float32) / TIMESTEP_SCALE, shift)
    return jnp.clip(TIMESTEP_SCALE * sigmas_B, low, high)


def bell_weight(timesteps_B: jax.Array, shift: float) -> jax.Array:
    """Weight of each video's loss that prefers middle timesteps: 0 at 1000, highest at 500.

    Args:
      timesteps_B: On the 0..1000 scale, [B].
      shift: Of the thousand training timesteps, over which the mean weight is 1.

    Returns:
      float32 [B].

    Source: `FlowMatchScheduler.training_weight` of Wan2.2-TI2V-5B-Turbo, `utils/scheduler.py`.
    """

    def bell(sigmas: Any, xp: Any) -> Any:
        return xp.exp(-2 * (sigmas - 0.5) ** 2)

    table = bell(shift_sigmas(np.linspace(1.0, 0.0, 1001)[:-1], shift), np)
    lowest, mean = float(table.min()), float(table.mean())
    return (bell(timesteps_B / TIMESTEP_SCALE, jnp) - lowest) / (mean - lowest)


@overload
def round_timesteps(timesteps: np.ndarray, rounding: TimestepRounding) -> np.ndarray: ...
@overload
def round_timesteps(timesteps: jax.Array, rounding: TimestepRounding) -> jax.Array: ...
def round_timesteps(
    timesteps: np.ndarray | jax.Array, rounding: TimestepRounding
) -> np.ndarray | jax.Array:
    """Rounds timesteps as the code that a model was trained with did.

    Args:
      timesteps: On the 0..1000 scale, any shape.
      rounding: "none"; "integer" truncates; "bfloat16" rounds to 8 significant bits and truncates:
        1000, 937.5, 833.3, 625 become 1000, 936, 832, 624.

    Returns:
      Timesteps of the same shape and dtype.

    Source: `pipeline/bidirectional_training.py` of Wan2.2-TI2V-5B-Turbo, where timesteps pass
      through the dtype of the noise on their way to whole numbers.
    """
    if rounding == "none":
        return timesteps
    xp = jnp if isinstance(timesteps, jax.Array) else np
    if rounding == "bfloat16":
        # By arithmetic: a compiler may leave out a conversion to bfloat16 and back.
        mantissa, exponent = xp.frexp(timesteps)
        timesteps = xp.ldexp(xp.round(mantissa * 256), exponent - 8).astype(timesteps.dtype)
    return xp.floor(timesteps)
