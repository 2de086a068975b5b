r"""The losses of the three stages, numbered as in the paper.

With clean latents `x_0`, noise `eps`, a model's velocity `v` or clean latents `mu`, and the
discriminator's logit `D`:

    (1)  grad L_DMD  = (mu_fake - mu_real) / mean |x_0 - mu_real|   with respect to x_0
    (2)  L_fake      = mean (mu_fake - x_0)^2
    (3)  L_diffusion = mean (G - x_0)^2
    (4)  L_G         = mean softplus(-D(fake))
    (5)  L_D         = mean softplus(-D(real)) + mean softplus(D(fake))
    (6)  L           = L_G + lambda L_diffusion
    (7)  lambda      = slope step + offset

and, not numbered there, stage 1's loss and the penalty on the discriminator's slope:

    (8)  L_flow = mean (v - (eps - x_0))^2
    (9)  L_aR   = mean (D(x) - D(x + small noise))^2

Every loss is a float32 scalar, the mean over videos of what each video has alone: nothing is
normalised over the batch. Where latent frame 0 is the given image, no loss and no normaliser
looks at it: nothing was predicted there.

Sources: FlashMotion sections 3.2 to 3.4; Yin et al., "One-step Diffusion with Distribution Matching
Distillation", arXiv:2311.18828, for the normaliser of (1); Lin et al., "Diffusion Adversarial
Post-Training", arXiv:2501.08316, for (9).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flashmotion_jax.diffusion.flow import velocity_target
from flashmotion_jax.runtime.errors import UserError


def velocity_loss(
    velocity: jax.Array, x0: jax.Array, noise: jax.Array, has_image: bool
) -> jax.Array:
    """The flow-matching loss: equation (8).

    Args:
      velocity: The model's prediction, [B, T, h, w, C].
      x0: Clean latents of the same shape.
      noise: The unit Gaussian noise they were noised with.
      has_image: Whether latent frame 0 is the given image, which is left out.

    Returns:
      float32 scalar.

    Raises:
      UserError: There is an image and no other frame.
    """
    target = velocity_target(x0.astype(jnp.float32), noise)
    return x0_loss(velocity, target, has_image)


def x0_loss(prediction: jax.Array, target: jax.Array, has_image: bool) -> jax.Array:
    """The mean squared error of clean latents: equations (2) and (3).

    Args:
      prediction: Clean latents as a model predicts them, [B, T, h, w, C].
      target: What they shall be.
      has_image: Whether latent frame 0 is the given image, which is left out.

    Returns:
      float32 scalar.

    Raises:
      UserError: There is an image and no other frame.
    """
    error = _predicted(prediction, has_image) - _predicted(target, has_image)
    return jnp.mean(error**2)


def distribution_matching_loss(
    x0: jax.Array, real_x0: jax.Array, fake_x0: jax.Array, has_image: bool
) -> jax.Array:
    """A loss whose gradient moves the student's videos towards real ones: equation (1).

    The loss is half the mean square of the gradient (1), and its own gradient with respect to an
    element of `x0` is that of (1) divided by the number of elements that are predicted; (1) is 0
    where it is not finite. The normaliser is a mean over the predicted frames of each video.

    Args:
      x0: The student's clean latents, [B, T, h, w, C]; the only input that gets a gradient.
      real_x0: What the score of real videos makes of them, noised.
      fake_x0: What the score of the student's videos makes of them, noised.
      has_image: Whether latent frame 0 is the given image, which is left out.

    Returns:
      float32 scalar.

    Raises:
      UserError: There is an image and no other frame.
    """
    x0, real_x0, fake_x0 = (_predicted(x, has_image) for x in (x0, real_x0, fake_x0))
    normaliser = jnp.mean(jnp.abs(x0 - real_x0), axis=(1, 2, 3, 4), keepdims=True)
    gradient = (fake_x0 - real_x0) / normaliser
    gradient = jax.lax.stop_gradient(jnp.where(jnp.isfinite(gradient), gradient, 0.0))
    # x0 - stop_gradient(x0 - gradient), in the order that does not round the gradient to x0's.
    return 0.5 * jnp.mean((x0 - jax.lax.stop_gradient(x0) + gradient) ** 2)


def generator_adversarial_loss(fake_logits: jax.Array) -> jax.Array:
    """What the generator pays for being recognised: equation (4), of logits [B]."""
    return jnp.mean(jax.nn.softplus(-fake_logits.astype(jnp.float32)))


def discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """What the discriminator pays for mistaking real and fake: equation (5), of logits [B]."""
    real = jax.nn.softplus(-real_logits.astype(jnp.float32))
    fake = jax.nn.softplus(fake_logits.astype(jnp.float32))
    return jnp.mean(real) + jnp.mean(fake)


def approximate_gradient_penalty(logits: jax.Array, perturbed_logits: jax.Array) -> jax.Array:
    """R1 on real videos or R2 on fake ones, by a finite difference: equation (9).

    Args:
      logits: [B], of the videos.
      perturbed_logits: [B], of the same videos with a little noise added.

    Returns:
      float32 scalar.
    """
    difference = logits.astype(jnp.float32) - perturbed_logits.astype(jnp.float32)
    return jnp.mean(difference**2)


def dynamic_scale(step: jax.Array | int, slope: float, offset: float) -> jax.Array:
    """Weight of the diffusion loss at a training step, float32: equation (7)."""
    return slope * jnp.asarray(step, jnp.float32) + offset


def temporal_variance(latents: jax.Array) -> jax.Array:
    """How much each video moves: variance over latent frames, mean over space and channels.

    A student that collapses to a copy of frame 0 has nearly none, compared with data.

    Args:
      latents: [B, T, h, w, C].

    Returns:
      float32 [B].
    """
    return jnp.mean(jnp.var(latents.astype(jnp.float32), axis=1), axis=(1, 2, 3))


def _predicted(latents: jax.Array, has_image: bool) -> jax.Array:
    """The frames that a model predicts, in float32: all but the image."""
    if has_image and latents.shape[1] == 1:
        raise UserError(
            f"latents of shape {latents.shape} hold the image alone; expected at least two latent "
            f"frames, or has_image=False"
        )
    return latents[:, int(has_image) :].astype(jnp.float32)
