"""Models small enough for tests: the real classes, the real 48 latent channels, little else.

Weights are drawn with numpy: initializers would compile one program for each shape.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples.small_checkpoint import write_tokenizer
from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    DiTConfig,
    TextEncoderConfig,
    TinyVAEConfig,
    VAEConfig,
)
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.layers import FLOAT32
from flashmotion_jax.models.vae import VAE

DIT = DiTConfig(dim=48, num_heads=2, ffn_dim=64, num_layers=3, text_dim=32, text_len=16)
VAE_CONFIG = VAEConfig(encoder_dim=4, decoder_dim=4, num_res_blocks=1)
TINY_VAE = TinyVAEConfig(encoder_dim=4, decoder_dims=(8, 8, 4, 4))
TEXT = TextEncoderConfig(vocab_size=300, dim=32, num_heads=4, head_dim=8, ffn_dim=48, num_layers=2)


def random_module(make, seed=0):
    """The module that `make` builds, with random weights of the scale of a trained one."""
    return random_weights(nnx.eval_shape(make), seed)


def random_weights(abstract, seed=0):
    return jax.tree.map(jnp.array, _draw(abstract, seed))


def make_dit(config=DIT, seed=0, policy=FLOAT32):
    return jax.tree.map(jnp.array, _drawn_model(DiT, config, seed, policy))


def make_vae(config=VAE_CONFIG, seed=0, policy=FLOAT32):
    return jax.tree.map(jnp.array, _drawn_model(VAE, config, seed, policy))


@functools.cache
def _drawn_model(model, config, seed, policy):
    return _draw(nnx.eval_shape(lambda: model(config, policy=policy, rngs=nnx.Rngs(0))), seed)


def _draw(abstract, seed):
    """Weights in numpy, of which every caller gets copies: a test may donate them."""
    rng = np.random.default_rng(seed)

    def draw(path, param):
        name = path[-2].name if hasattr(path[-1], "name") else path[-1].name
        noise = rng.standard_normal(param.shape, np.float32)
        if name == "scale":
            noise = 1 + 0.1 * noise
        elif name == "kernel":
            noise /= np.sqrt(np.prod(param.shape[-4 if len(param.shape) > 3 else -2 : -1]))
        else:
            noise *= 0.1
        return noise.astype(param.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract)


def perturbed(module, seed=9, scale=0.2):
    """The module with noise on every weight, so that what starts at zero does something."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + scale * rng.standard_normal(leaf.shape).astype(leaf.dtype), module
    )


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def diffusers_dit(config):
    """diffusers' transformer of the same sizes, with random weights."""
    diffusers = pytest.importorskip("diffusers")
    return diffusers.WanTransformer3DModel(
        patch_size=(1, *config.patch_size),
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=config.eps,
    )


def dit_inputs(batch=2, frames=3, height=4, width=6, tokens=16, config=DIT):
    timesteps = 1000 * np.random.default_rng(1).uniform(size=(batch, frames)).astype(np.float32)
    timesteps[:, 0] = 0
    return (
        normal(0, batch, frames, height, width, config.in_channels),
        jnp.asarray(timesteps),
        normal(2, batch, tokens, config.text_dim),
    )


def save_checkpoint(folder, sampling):
    """A checkpoint with random weights, both adapters and a tiny VAE."""
    shutil.copytree(_components().name, folder, dirs_exist_ok=True)
    components.write_sampling(folder, sampling)
    return folder


@functools.cache
def _components():
    """The components of every checkpoint, saved once a process."""
    scratch = tempfile.TemporaryDirectory(prefix="flashmotion-tests-")
    atexit.register(scratch.cleanup)

    def save(kind, config, dit_config=None):
        abstract = components.abstract_module(kind, config, "float32", dit_config)
        readers = components.parameter_readers(random_weights(abstract))
        components.save_component(
            scratch.name, kind, config, readers, "float32", dit_config=dit_config
        )

    save("dit", DIT)
    save("vae", VAE_CONFIG)
    save("tiny_vae", TINY_VAE)
    save("text_encoder", TEXT)
    save("adapters/resnet", ResNetAdapterConfig(width=16), DIT)
    save("adapters/controlnet", ControlNetConfig(), DIT)
    write_tokenizer(Path(scratch.name) / "tokenizer")
    return scratch
