"""Models small enough for tests: the real classes, the real 48 latent channels, little else."""

from __future__ import annotations

import jax
from flax import nnx

from flashmotion_jax.config import DiTConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.vae import VAE

DIT = DiTConfig(dim=48, num_heads=2, ffn_dim=64, num_layers=3, text_dim=32, text_len=16)
VAE_CONFIG = VAEConfig(encoder_dim=8, decoder_dim=8)
TEXT = TextEncoderConfig(vocab_size=300, dim=32, num_heads=4, head_dim=8, ffn_dim=48, num_layers=2)


def make_dit(config=DIT, seed=0, **kwargs):
    return DiT(config, rngs=nnx.Rngs(seed), **kwargs)


def make_vae(seed=0, **kwargs):
    return VAE(VAE_CONFIG, rngs=nnx.Rngs(seed), **kwargs)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def dit_inputs(batch=2, frames=3, height=4, width=6, tokens=16, config=DIT):
    timesteps = 1000 * jax.random.uniform(jax.random.key(1), (batch, frames))
    return (
        normal(0, batch, frames, height, width, config.in_channels),
        timesteps.at[:, 0].set(0.0),
        normal(2, batch, tokens, config.text_dim),
    )


def perturbed(module, seed=9, scale=0.2):
    """The module with noise on every weight, so that what starts at zero does something."""
    leaves, tree = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        tree,
        [
            leaf + scale * jax.random.normal(key, leaf.shape, leaf.dtype)
            for leaf, key in zip(leaves, keys, strict=True)
        ],
    )
