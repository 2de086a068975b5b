r"""Rectified flow: the straight path between data and noise that Wan2.2 was trained on.

With clean latents `x_0`, unit Gaussian noise `eps` and a noise level `sigma` in [0, 1], which
models receive as `timestep = 1000 sigma`:

    (1)  x_sigma = (1 - sigma) x_0 + sigma eps
    (2)  v       = d x_sigma / d sigma = eps - x_0
    (3)  x_0     = x_sigma - sigma v
    (4)  sigma'  = shift sigma / (1 + (shift - 1) sigma)

A model predicts the velocity (2). Samplers convert it to `x_0` with (3) and shift their noise
levels with (4), which takes more steps at high noise. Training samples (1) and regresses (2).

Sources: Liu et al., "Flow Straight and Fast", arXiv:2209.03003, for (1) to (3); Esser et al.,
"Scaling Rectified Flow Transformers", arXiv:2403.03206, section 5.3.2, for (4).
"""

from __future__ import annotations

from typing import overload

import jax
import jax.numpy as jnp
import numpy as np

TIMESTEP_SCALE = 1000.0
"""Timesteps are noise levels scaled to 0..1000."""


def add_noise(x0: jax.Array, noise: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """Adds noise to clean latents: equation (1).

    Args:
      x0: Clean latents, [B, T, h, w, C].
      noise: Unit Gaussian noise of the same shape.
      sigma: Noise level in [0, 1]: a scalar, per video [B], or per latent frame [B, T].

    Returns:
      Noisy latents, float32 [B, T, h, w, C].
    """
    sigma = _over_latents(sigma, x0)
    return (1.0 - sigma) * x0 + sigma * noise


def velocity_target(x0: jax.Array, noise: jax.Array) -> jax.Array:
    """The velocity that a model is trained to predict: equation (2).

    Args:
      x0: Clean latents, [B, T, h, w, C].
      noise: Unit Gaussian noise of the same shape.

    Returns:
      Velocity, [B, T, h, w, C].
    """
    return noise - x0


def velocity_to_x0(latents: jax.Array, velocity: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """Converts a predicted velocity to clean latents: equation (3).

    Args:
      latents: Noisy latents, [B, T, h, w, C].
      velocity: The model's prediction, of the same shape.
      sigma: Noise level of the latents: a scalar, [B] or [B, T].

    Returns:
      Clean latents, float32 [B, T, h, w, C].
    """
    return latents - _over_latents(sigma, latents) * velocity


@overload
def shift_sigmas(sigmas: np.ndarray, shift: float) -> np.ndarray: ...
@overload
def shift_sigmas(sigmas: jax.Array, shift: float) -> jax.Array: ...
def shift_sigmas(sigmas: np.ndarray | jax.Array, shift: float) -> np.ndarray | jax.Array:
    """Shifts noise levels towards 1, keeping 0 and 1: equation (4).

    Args:
      sigmas: Noise levels in [0, 1], any shape.
      shift: Values above 1 shift towards noise; Wan2.2-TI2V-5B uses 5, or 3 at 480p.

    Returns:
      Noise levels, the same shape and dtype.
    """
    return shift * sigmas / (1.0 + (shift - 1.0) * sigmas)


def _over_latents(sigma: jax.Array | float, latents: jax.Array) -> jax.Array:
    """Appends axes of length 1, so that sigma broadcasts along its leading axes."""
    sigma = jnp.asarray(sigma, jnp.float32)
    return jnp.expand_dims(sigma, range(sigma.ndim, latents.ndim))
