"""Timesteps that training noises videos to."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, shift_sigmas
from flashmotion_jax.runtime.errors import UserError


def draw_timesteps(
    keys_B: jax.Array, *, shift: float = 5.0, low: float = 0.0, high: float = 1000.0
) -> jax.Array:
    """A timestep of each video from its own key, the same for all its latent frames.

    Uniform integers in [0, 1000), moved towards noise by equation (4) of `flow`, then clamped.

    Args:
      keys_B: [B] random keys.
      shift: 5 for Wan2.2-TI2V-5B, 1 leaves them uniform.
      low: Least timestep; distribution matching takes 20.
      high: Greatest timestep; distribution matching takes 980.

    Returns:
      float32 [B] in [low, high].

    Raises:
      UserError: The shift is not above 0, or the bounds are not rising in 0..1000.

    Source: Wan2.2's training shift; Self Forcing `model/dmd.py` for the integers and the clamp.
    """
    if not (shift > 0 and 0 <= low < high <= TIMESTEP_SCALE):
        raise UserError(
            f"timesteps with shift={shift}, low={low}, high={high}: expected a shift above 0 and "
            f"0 <= low < high <= {TIMESTEP_SCALE:g}, for instance 5, 20 and 980"
        )
    drawn_B = jax.vmap(lambda key: jax.random.randint(key, (), 0, int(TIMESTEP_SCALE)))(keys_B)
    sigmas_B = shift_sigmas(drawn_B.astype(jnp.float32) / TIMESTEP_SCALE, shift)
    return jnp.clip(TIMESTEP_SCALE * sigmas_B, low, high)
