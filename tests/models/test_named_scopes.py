"""Profiles can be read: every part of the models names its operations."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.config import ADAPTERS
from flashmotion_jax.models.adapters import adapter_class, takes_known_frames
from flashmotion_jax.models.adapters.condition import sparse_condition
from flashmotion_jax.models.text_encoder import TextEncoder
from helpers import tiny


def scopes(function, *args):
    """The named scopes of every operation in the lowered program, joined by slashes."""
    text = jax.jit(function).lower(*args).as_text(debug_info=True)
    return {f"/{path}" for path in re.findall(r'loc\("([^"]+)"', text)}


def assert_named(found, *names):
    for name in names:
        assert any(f"/{name}/" in path for path in found), name


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_dit_and_its_adapters(kind):
    dit = nnx.eval_shape(tiny.make_dit)
    adapter = nnx.eval_shape(
        lambda: adapter_class(kind)(ADAPTERS[kind].config(), tiny.DIT, rngs=nnx.Rngs(0))
    )
    latents, timesteps, text = tiny.dit_inputs()

    def forward(dit, adapter, latents, timesteps, text):
        trajectory = latents
        if takes_known_frames(adapter):
            trajectory = sparse_condition(latents, jnp.ones(latents.shape[:2], bool))
        prepared = adapter.prepare(trajectory, text)
        residuals = adapter(prepared, latents, timesteps, jnp.float32(1))
        return dit(latents, timesteps, text, residuals)

    found = scopes(forward, dit, adapter, latents, timesteps, text)
    assert_named(found, "dit", "embed_patches", "embed_timesteps", "text_context", "adapter")
    assert_named(found, "block/self_attention", "block/cross_attention", "block/ffn", "head")


def test_the_vae():
    vae = nnx.eval_shape(tiny.make_vae)
    latents, video = jnp.zeros((1, 2, 2, 2, 48)), jnp.zeros((1, 5, 32, 32, 3))
    encoder, decoder = (
        scopes(lambda vae, x: vae.encode(x), vae, video),
        scopes(lambda vae, x: vae.decode(x), vae, latents),
    )
    for half, found in (("encoder", encoder), ("decoder", decoder)):
        assert_named(found, *(f"{half}/level{level}" for level in range(4)), f"{half}/middle")
        assert_named(found, "middle/attention")


def test_the_text_encoder():
    encoder = nnx.eval_shape(lambda: TextEncoder(tiny.TEXT, rngs=nnx.Rngs(0)))
    ids = np.zeros((1, 4), np.int32)
    found = scopes(lambda encoder, ids: encoder(ids, ids), encoder, ids)
    assert_named(found, "text_encoder", "block/attention", "block/ffn")
