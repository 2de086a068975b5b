from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.config import DiTConfig
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig, SparseCtrlConfig
from flashmotion_jax.models.adapters.controlnet import ControlNet
from flashmotion_jax.models.adapters.resnet import ResNetAdapter
from flashmotion_jax.models.adapters.sparsectrl import SparseCtrl
from flashmotion_jax.models.dit import DiT, ResidualStream
from helpers import compiling, tiny

jit = functools.partial(jax.jit, compiler_options=compiling.FUSED_AS_FOR_USERS)

KINDS = {
    "resnet": (ResNetAdapter, ResNetAdapterConfig(width=16)),
    "controlnet": (ControlNet, ControlNetConfig()),
    "controlnet, trajectory alone": (ControlNet, ControlNetConfig(input="trajectory")),
    "sparsectrl": (SparseCtrl, SparseCtrlConfig()),
}


def make_trajectory(kind, latents):
    """Latents of a trajectory; those of a sparse adapter have a channel more, for the mask."""
    *shape, channels = latents.shape
    return tiny.normal(3, *shape, channels + (kind == "sparsectrl"))


def make_adapter(kind, seed=1):
    cls, config = KINDS[kind]
    return cls(config, tiny.DIT, rngs=nnx.Rngs(seed))


@jit
def with_adapter(dit, adapter, latents, timesteps, text, trajectory, scale):
    residuals = adapter(adapter.prepare(trajectory, text), latents, timesteps, scale)
    return dit(latents, timesteps, text, residuals)


@jit
def without_adapter(dit, latents, timesteps, text):
    return dit(latents, timesteps, text)


def billions(make):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.eval_shape(make))) / 1e9


def test_sizes_are_those_of_the_paper():
    config = DiTConfig()
    dit = billions(lambda: DiT(config, rngs=nnx.Rngs(0)))
    resnet = billions(lambda: ResNetAdapter(ResNetAdapterConfig(), config, rngs=nnx.Rngs(0)))
    controlnet = billions(lambda: ControlNet(ControlNetConfig(), config, rngs=nnx.Rngs(0)))
    sparsectrl = billions(lambda: SparseCtrl(SparseCtrlConfig(), config, rngs=nnx.Rngs(0)))
    assert dit + resnet == pytest.approx(5.02, abs=0.01)
    assert dit + controlnet == pytest.approx(10.28, abs=0.01)
    # It has 49 input channels in place of 96.
    assert controlnet - sparsectrl == pytest.approx((96 - 49) * 4 * 3072 / 1e9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_leaves_the_generator_bit_identical(kind):
    dit, inputs = tiny.make_dit(), tiny.dit_inputs()
    trajectory = make_trajectory(kind, inputs[0])
    adapted = with_adapter(dit, make_adapter(kind), *inputs, trajectory, jnp.float32(1))
    np.testing.assert_array_equal(adapted, without_adapter(dit, *inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_scale_weighs_the_residuals(kind):
    dit, inputs = tiny.make_dit(), tiny.dit_inputs()
    adapter = tiny.perturbed(make_adapter(kind))
    trajectory = make_trajectory(kind, inputs[0])
    plain = without_adapter(dit, *inputs)
    off = with_adapter(dit, adapter, *inputs, trajectory, jnp.float32(0))
    on = with_adapter(dit, adapter, *inputs, trajectory, jnp.float32(1))
    np.testing.assert_array_equal(off, plain)
    assert np.abs(on - plain).max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_residual_i_is_added_to_the_output_of_block_i(kind):
    """The scan against a plain loop over unstacked blocks."""
    dit, (latents, timesteps, text) = tiny.make_dit(), tiny.dit_inputs()
    adapter = tiny.perturbed(make_adapter(kind))
    trajectory = make_trajectory(kind, latents)

    @jax.jit
    def loop(dit, adapter, latents, timesteps, text, trajectory, scale):
        stream = adapter(adapter.prepare(trajectory, text), latents, timesteps, scale)
        context = dit.text_context(text)
        embedding, modulation = dit.embed_timesteps(timesteps)
        x, carry, rope = dit.embed_patches(latents), stream.carry, dit.rope(latents)
        for i in range(tiny.DIT.num_layers):
            block, keys_values, layer = jax.tree.map(
                lambda leaf, i=i: leaf[i], (dit.blocks, tuple(context), stream.layers)
            )
            x = block(x, modulation, keys_values, rope)
            carry, residual = stream.step(carry, layer)
            x = x + residual
        return dit.head(x, embedding)

    arguments = dit, adapter, latents, timesteps, text, trajectory, jnp.float32(0.5)
    looped, scanned = loop(*arguments), with_adapter(*arguments)
    patches = jnp.reshape(looped, (2, 3, 2, 3, 2, 2, 48)).transpose(0, 1, 2, 4, 3, 5, 6)
    np.testing.assert_allclose(scanned, patches.reshape(scanned.shape), atol=2e-5)


def test_resnet_does_not_look_at_latents_timesteps_or_text():
    adapter = tiny.perturbed(make_adapter("resnet"))
    latents, timesteps, text = tiny.dit_inputs()
    trajectory = tiny.normal(3, *latents.shape)
    features = adapter.prepare(trajectory, text)
    np.testing.assert_array_equal(features, adapter.prepare(trajectory, 2 * text))
    assert features.shape == (3, 2, 3, 6, 16)
    streams = [adapter(features, x, t, 1.0) for x, t in ((latents, timesteps), (0 * latents, None))]
    for one, other in zip(*(jax.tree.leaves(s.layers) for s in streams), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["controlnet", "controlnet, trajectory alone"])
def test_a_copied_controlnet_runs_the_dits_own_blocks(kind):
    dit, (latents, timesteps, text) = tiny.make_dit(), tiny.dit_inputs()
    fresh = make_adapter(kind)
    copied = fresh.copy_from_dit(dit)
    np.testing.assert_array_equal(copied.blocks.ffn.up.kernel[...], dit.blocks.ffn.up.kernel[...])
    assert np.abs(fresh.blocks.ffn.up.kernel[...] - dit.blocks.ffn.up.kernel[...]).max() > 0
    # New input channels start at zero: with them, the trajectory is not seen at all.
    is_wide = kind == "controlnet"
    trajectory = tiny.normal(3, *latents.shape) if is_wide else latents
    stream = copied(copied.prepare(trajectory, text), latents, timesteps, 1.0)
    np.testing.assert_allclose(stream.carry, dit.embed_patches(latents), atol=1e-6)


def test_unknown_controlnet_input_raises():
    with pytest.raises(ValueError, match="input='latents' is unknown"):
        ControlNet(ControlNetConfig(input="latents"), tiny.DIT, rngs=nnx.Rngs(0))


def test_any_object_that_returns_a_stream_is_an_adapter():
    class ConstantAdapter:
        def prepare(self, trajectory, text):
            return jnp.ones((3, 1, 1, 1, 1))

        def __call__(self, prepared, latents, timesteps, scale):
            return ResidualStream((), prepared, lambda carry, bias: (carry, scale * bias))

    dit, (latents, timesteps, text) = tiny.make_dit(), tiny.dit_inputs()
    adapter = ConstantAdapter()
    residuals = adapter(adapter.prepare(latents, text), latents, timesteps, 1.0)
    assert (
        np.abs(dit(latents, timesteps, text, residuals) - dit(latents, timesteps, text)).max() > 0
    )


@pytest.mark.parametrize("kind", ["resnet", "controlnet"])
def test_residuals_of_all_blocks_never_exist_together(kind):
    """At 16 layers the program needs no more memory than at 4, but for what each layer owns."""

    def temporaries(num_layers):
        config = DiTConfig(dim=48, num_heads=2, ffn_dim=64, num_layers=num_layers, text_dim=32)
        cls, adapter_config = KINDS[kind]
        dit = nnx.eval_shape(lambda: DiT(config, rngs=nnx.Rngs(0)))
        adapter = nnx.eval_shape(lambda: cls(adapter_config, config, rngs=nnx.Rngs(0)))
        inputs = tiny.dit_inputs(batch=1, frames=5, height=16, width=16)
        prepared = jax.eval_shape(lambda a, z, c: a.prepare(z, c), adapter, inputs[0], inputs[2])
        context = jax.eval_shape(lambda d, c: d.text_context(c), dit, inputs[2])

        def forward(dit, adapter, prepared, context, latents, timesteps):
            residuals = adapter(prepared, latents, timesteps, 1.0)
            return dit(latents, timesteps, context, residuals)

        compiled = jax.jit(forward).lower(dit, adapter, prepared, context, *inputs[:2]).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    residual_bytes = 5 * 64 * 48 * 4
    assert temporaries(16) - temporaries(4) < 4 * residual_bytes
