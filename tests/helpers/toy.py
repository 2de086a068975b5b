"""Tiny networks that replace DiT, adapter and discriminator in tests of the losses.

They compile in a second, and `toy_torch` has the same ones in PyTorch. Every input affects the
result: frames and channels are mixed, so that a loss cannot ignore one unnoticed.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashmotion_jax.data.batches import Batch
from flashmotion_jax.training.train_state import to_arrays
from flashmotion_jax.training.train_step import split_keys

SHAPE = (3, 2, 2, 4)
TOKENS, TEXT_DIM = 5, 3


def param(rng, *shape):
    return nnx.Param(jnp.asarray(rng.normal(0, 0.4, shape), jnp.float32))


def level(timesteps):
    return timesteps[:, :, None, None, None] / 1000


def per_channel(param):
    """A parameter `[C]` that is multiplied with latents."""
    return param[...].reshape(1, 1, 1, 1, -1)


class DiT(nnx.Module):
    """A velocity from latents, timesteps and text, with one layer and a tanh."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.frames = param(rng, SHAPE[0], SHAPE[0])
        self.channels = param(rng, SHAPE[-1], SHAPE[-1])
        self.text = param(rng, TEXT_DIM, SHAPE[-1])
        self.time = param(rng, SHAPE[-1])

    def text_context(self, text):
        return text.mean(1) @ self.text[...]

    def __call__(self, latents, timesteps, text, residuals=None):
        mixed = jnp.einsum("btijc,ts,cd->bsijd", latents, self.frames[...], self.channels[...])
        hidden = mixed + text[:, None, None, None] + level(timesteps) * per_channel(self.time)
        return jnp.tanh(hidden if residuals is None else hidden + residuals)


class Adapter(nnx.Module):
    """A residual from trajectory, latents and timesteps."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.trajectory = param(rng, SHAPE[-1], SHAPE[-1])
        self.gate = param(rng, SHAPE[-1])

    def prepare(self, trajectory, text):
        return trajectory @ self.trajectory[...]

    def __call__(self, prepared, latents, timesteps, scale):
        return scale * (prepared + latents * level(timesteps) * per_channel(self.gate))


class Discriminator(nnx.Module):
    """A logit from a backbone's features of a video, the first frame and the trajectory."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.video, self.image, self.trajectory = (param(rng, SHAPE[-1]) for _ in range(3))

    def __call__(self, backbone, latents, timesteps, text, image_latents, trajectory):
        features = backbone(latents, timesteps, backbone.text_context(text))
        seen = features * (per_channel(self.video) + trajectory * per_channel(self.trajectory))
        return seen.mean((1, 2, 3)).sum(-1) + (image_latents.mean((1, 2, 3)) @ self.image[...])


def models():
    """One network for each role of any stage; the fake score is that of stage 2."""
    return {
        "generator": DiT(1),
        "slow_generator": DiT(2),
        "fast_generator": DiT(3),
        "adapter": Adapter(4),
        "slow_adapter": Adapter(5),
        "adapter_ema": Adapter(6),
        "fake_score": DiT(10),
        "discriminator": Discriminator(7),
        "empty_text": normal(8, TOKENS, TEXT_DIM),
        "negative_text": normal(9, TOKENS, TEXT_DIM),
    }


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def batch(size=4, seed=0):
    return Batch(
        latents=normal(seed, size, *SHAPE),
        trajectory=normal(seed + 100, size, *SHAPE),
        text=normal(seed + 200, size, TOKENS, TEXT_DIM),
    )


def keys(seed=0, size=4):
    return split_keys(jax.random.key(seed), batch(size))


def videos(indices, batch):
    """Some of the videos."""
    return jax.tree.map(lambda x: x[indices], batch)


@functools.partial(jax.jit, static_argnames=("losses",))
def evaluate(losses, models, batch, keys, step=0):
    """Evaluate a loss function as an update does.

    Returns:
      The sum that is minimized; its gradient, role to dotted path to array, for all networks and
      not only the trained one; terms; metrics.
    """

    def total(networks):
        terms, metrics = losses(models | networks, batch, keys, step)
        return sum(term.weight * term.value for term in terms.values()), (terms, metrics)

    networks = {role: model for role, model in models.items() if isinstance(model, nnx.Module)}
    (value, aux), gradients = jax.value_and_grad(total, has_aux=True)(networks)
    return value, {role: to_arrays(gradients[role]) for role in gradients}, *aux
