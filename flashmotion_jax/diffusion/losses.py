r"""Losses of the three training stages, with the equation numbers of the paper.

With clean latents `x_0`, noise `eps`, a predicted velocity `v` or predicted clean latents `mu`, and
the discriminator's logit `D`:

    (1)  grad L_DMD  = (mu_fake - mu_real) / mean |x_0 - mu_real|   with respect to x_0
    (2)  L_fake      = mean (mu_fake - x_0)^2
    (3)  L_diffusion = mean (G - x_0)^2
    (4)  L_G         = mean softplus(-D(fake))
    (5)  L_D         = mean softplus(-D(real)) + mean softplus(D(fake))
    (6)  L           = L_G + lambda L_diffusion
    (7)  lambda      = slope step + offset

and two that the paper does not number, the loss of stage 1 and the gradient penalty:

    (8)  L_flow = mean w (v - (eps - x_0))^2
    (9)  L_aR   = mean (D(x) - D(x + small noise))^2

Every loss is a float32 scalar, the mean of per-video losses: nothing is normalized over the batch.
If latent frame 0 is the conditioning image, losses and normalizers exclude it, because the model
does not predict it.

Sources: FlashMotion sections 3.2 to 3.4; Yin et al., "One-step Diffusion with Distribution Matching
Distillation", arXiv:2311.18828, for the normalizer of (1); Lin et al., "Diffusion Adversarial
Post-Training", arXiv:2501.08316, for (9).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flashmotion_jax.diffusion.flow import velocity_target
from flashmotion_jax.runtime.errors import UserError


def velocity_loss(
    velocity: jax.Array,
    x0: jax.Array,
    noise: jax.Array,
    has_image: bool,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Flow-matching loss: equation (8).

    Args:
      velocity: The model's prediction, [B, T, h, w, C].
      x0: Clean latents of the same shape.
      noise: The unit Gaussian noise that was added to them.
      has_image: Whether latent frame 0 is the conditioning image, which is excluded.
      weight: w of each video, [B], for instance of `timesteps.bell_weight`; None is 1.

    Returns:
      float32 scalar.

    Raises:
      UserError: The image is the only frame.
    """
    # A mean squared error of velocities has the form of equation (2), frames excluded alike.
    target = velocity_target(x0.astype(jnp.float32), noise)
    return x0_loss(velocity, target, has_image, weight)


def x0_loss(
    prediction: jax.Array, target: jax.Array, has_image: bool, weight: jax.Array | None = None
) -> jax.Array:
    """Mean squared error of clean latents: equations (2) and (3).

    Args:
      prediction: Predicted clean latents, [B, T, h, w, C].
      target: True clean latents of the same shape.
      has_image: Whether latent frame 0 is the conditioning image, which is excluded.
      weight: Of each video, [B]; None is 1.

    Returns:
      float32 scalar.

    Raises:
      UserError: The image is the only frame.
    """
    error = _predicted(prediction, has_image) - _predicted(target, has_image)
    if weight is None:
        return jnp.mean(error**2)
    return jnp.mean(weight * jnp.mean(error**2, axis=(1, 2, 3, 4)))


def distribution_matching_loss(
    x0: jax.Array, real_x0: jax.Array, fake_x0: jax.Array, has_image: bool
) -> jax.Array:
    """Surrogate loss whose gradient is that of distribution matching: equation (1).

    Its value is half the mean square of (1), and its gradient with respect to an element of `x0` is
    (1) divided by the number of predicted elements. Where (1) is not finite, it is replaced by 0.
    The normalizer is a mean over the predicted frames of each video.

    Args:
      x0: The student's clean latents, [B, T, h, w, C]; the only input with a gradient.
      real_x0: Clean latents that the score model of real videos predicts from `x0` with noise.
      fake_x0: Clean latents that the score model of generated videos predicts from the same input.
      has_image: Whether latent frame 0 is the conditioning image, which is excluded.

    Returns:
      float32 scalar.

    Raises:
      UserError: The image is the only frame.
    """
    x0, real_x0, fake_x0 = (_predicted(x, has_image) for x in (x0, real_x0, fake_x0))
    # Per video: one whose real score is far away must not shrink the gradients of the others.
    normalizer = jnp.mean(jnp.abs(x0 - real_x0), axis=(1, 2, 3, 4), keepdims=True)
    gradient = (fake_x0 - real_x0) / normalizer
    gradient = jax.lax.stop_gradient(jnp.where(jnp.isfinite(gradient), gradient, 0.0))
    # x0 - stop_gradient(x0 - gradient), ordered so that a small gradient is not rounded away next
    # to a large x0.
    return 0.5 * jnp.mean((x0 - jax.lax.stop_gradient(x0) + gradient) ** 2)


def generator_adversarial_loss(fake_logits: jax.Array) -> jax.Array:
    """Non-saturating adversarial loss of the generator: equation (4), from logits [B]."""
    return jnp.mean(jax.nn.softplus(-fake_logits.astype(jnp.float32)))


def discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Adversarial loss of the discriminator: equation (5), from logits [B]."""
    real = jax.nn.softplus(-real_logits.astype(jnp.float32))
    fake = jax.nn.softplus(fake_logits.astype(jnp.float32))
    return jnp.mean(real) + jnp.mean(fake)


def approximate_gradient_penalty(logits: jax.Array, perturbed_logits: jax.Array) -> jax.Array:
    """Finite-difference R1 (on real videos) or R2 (on generated ones) penalty: equation (9).

    The base code of FlashMotion, `model/gan.py` of Wan2.2-TI2V-5B-Turbo, divides it by the squared
    standard deviation of the noise, 0.01, and halves it: its weight w is 5,000 w here.

    Args:
      logits: Logits of the videos, [B].
      perturbed_logits: Logits of the same videos with a little noise added, [B].

    Returns:
      float32 scalar.
    """
    difference = logits.astype(jnp.float32) - perturbed_logits.astype(jnp.float32)
    return jnp.mean(difference**2)


def dynamic_scale(step: jax.Array | int, slope: float, offset: float) -> jax.Array:
    """Weight of the diffusion loss at a training step, float32: equation (7)."""
    return slope * jnp.asarray(step, jnp.float32) + offset


def temporal_variance(latents: jax.Array) -> jax.Array:
    """Amount of motion in each video: variance over latent frames, mean over space and channels.

    Close to 0 if a student collapses to copies of frame 0.

    Args:
      latents: [B, T, h, w, C].

    Returns:
      float32 [B].
    """
    return jnp.mean(jnp.var(latents.astype(jnp.float32), axis=1), axis=(1, 2, 3))


def _predicted(latents: jax.Array, has_image: bool) -> jax.Array:
    """Selects the predicted frames, all but the conditioning image, in float32."""
    if has_image and latents.shape[1] == 1:
        raise UserError(
            f"latents of shape {latents.shape} contain only the image; expected at least two "
            "latent frames, or has_image=False"
        )
    return latents[:, int(has_image) :].astype(jnp.float32)
