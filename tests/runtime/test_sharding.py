from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from flashmotion_jax.config import DiTConfig, VAEConfig
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.models.adapters.controlnet import ControlNet
from flashmotion_jax.models.adapters.resnet import ResNetAdapter
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.perf.hlo import parse_hlo
from flashmotion_jax.perf.hlo_counts import count
from flashmotion_jax.runtime import sharding
from helpers import tiny

MESHES = [(8, 1, 1), (2, 4, 1), (1, 8, 1), (1, 1, 2), (2, 2, 2), (1, 2, 4), (1, 1, 8)]
CASES = [*((mesh, "controlnet") for mesh in MESHES), ((2, 2, 2), "resnet"), ((1, 1, 8), "resnet")]


def shard_batch(mesh, *arrays):
    return [jax.device_put(x, NamedSharding(mesh, sharding.BATCH)) for x in arrays]


def make_adapter(kind):
    config = {"resnet": ResNetAdapterConfig(width=16), "controlnet": ControlNetConfig()}[kind]
    make = {"resnet": ResNetAdapter, "controlnet": ControlNet}[kind]
    return tiny.perturbed(make(config, tiny.DIT, rngs=nnx.Rngs(1)))


@jax.jit
def forward(dit, adapter, latents, timesteps, text):
    prepared = adapter.prepare(jnp.flip(latents, 1), text)
    return dit(latents, timesteps, text, adapter(prepared, latents, timesteps, 0.5))


@pytest.mark.parametrize(("shape", "kind"), CASES)
def test_dit_and_adapter_sharded_equal_unsharded(shape, kind):
    """Frames of 6 tokens, heads in pairs: 4 and 8 parts divide neither."""
    dit, adapter = tiny.make_dit(), make_adapter(kind)
    inputs = tiny.dit_inputs(batch=8)
    expected = forward(dit, adapter, *inputs)
    mesh = sharding.make_mesh(*shape)
    with jax.set_mesh(mesh):
        actual = forward(*sharding.place((dit, adapter), mesh), *shard_batch(mesh, *inputs))
        assert actual.sharding.spec[0] == sharding.BATCH[0]
    np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 1, 4)])
def test_gradients_over_tokens_equal_those_of_one_device(shape):
    dit, adapter = tiny.make_dit(), make_adapter("controlnet")
    latents, timesteps, text = tiny.dit_inputs(batch=4)

    @jax.jit
    def gradients(dit, adapter, *inputs):
        def loss(both):
            return jnp.mean(jnp.sin(forward(*both, *inputs)))

        return jax.grad(loss)((dit, adapter))

    expected = gradients(dit, adapter, latents, timesteps, text)
    mesh = sharding.make_mesh(*shape)
    with jax.set_mesh(mesh):
        inputs = shard_batch(mesh, latents, timesteps, text)
        actual = gradients(*sharding.place((dit, adapter), mesh), *inputs)
    for found, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)


def test_a_discriminator_sees_the_same_taps():
    dit = tiny.make_dit()
    inputs = tiny.dit_inputs(batch=4)
    taps = jax.jit(lambda dit, *inputs: dit.block_outputs(*inputs, (0, 2)))
    expected = taps(dit, *inputs)
    mesh = sharding.make_mesh(2, 1, 4)
    with jax.set_mesh(mesh):
        actual = taps(sharding.place(dit, mesh), *shard_batch(mesh, *inputs))
    np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("context", "trades", "gathers"), [(2, {"all-to-all": 4 * 3}, 1), (4, {"all-to-all": 4 * 3}, 7)]
)
def test_collectives_of_one_video_equal_the_budget(context, trades, gathers):
    """A layer trades queries, keys, values and its result; sharing heads gathers keys and values.

    Beside them the velocity is gathered at the end, once.
    """
    mesh = sharding.make_mesh(1, 1, context)
    with jax.set_mesh(mesh):
        inputs = shard_batch(mesh, *tiny.dit_inputs(batch=1))
        velocity = jax.jit(lambda dit, *inputs: dit(*inputs))
        text = velocity.lower(sharding.place(tiny.make_dit(), mesh), *inputs).compile().as_text()
    collectives = {kind: found.runs for kind, found in count(parse_hlo(text)).collectives.items()}
    assert collectives == trades | {"all-gather": gathers}


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 1, 2), (2, 2, 2)])
def test_vae_sharded_equals_unsharded(shape):
    vae = tiny.make_vae()
    video = np.random.default_rng(0).uniform(-1, 1, (8, 5, 16, 32, 3)).astype(np.float32)
    encode = jax.jit(lambda vae, x: vae.encode(x))
    decode = jax.jit(lambda vae, x: vae.decode(x))
    latents = encode(vae, video)
    expected = decode(vae, latents)
    mesh = sharding.make_mesh(*shape)
    with jax.set_mesh(mesh):
        vae = sharding.place(vae, mesh)
        video, sharded_input = shard_batch(mesh, video, latents)
        sharded_latents = encode(vae, video)
        actual = decode(vae, sharded_input)
    np.testing.assert_allclose(np.asarray(sharded_latents), latents, atol=1e-5)
    np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-5)


def test_weights_of_the_stacks_are_split_over_fsdp():
    mesh = sharding.make_mesh(2, 4)
    dit = sharding.place(tiny.make_dit(), mesh)
    kernel = dit.blocks.ffn.up.kernel[...]
    assert kernel.sharding.spec == PartitionSpec(None, "fsdp", None)
    assert kernel.addressable_shards[0].data.shape == (3, 12, 64)
    assert dit.patch_embedding.kernel[...].sharding.is_fully_replicated


def test_a_dimension_that_does_not_divide_stays_whole():
    mesh = sharding.make_mesh(1, 8)
    config = DiTConfig(dim=36, num_heads=2, ffn_dim=64, num_layers=2, text_dim=32)
    blocks = sharding.place(tiny.make_dit(config), mesh).blocks
    assert blocks.ffn.up.kernel[...].sharding.is_fully_replicated


def test_every_parameter_of_every_model_names_its_axes():
    modules = [
        lambda: DiT(DiTConfig(), rngs=nnx.Rngs(0)),
        lambda: VAE(VAEConfig(), rngs=nnx.Rngs(0)),
        lambda: ResNetAdapter(ResNetAdapterConfig(), DiTConfig(), rngs=nnx.Rngs(0)),
        lambda: ControlNet(ControlNetConfig(), DiTConfig(), rngs=nnx.Rngs(0)),
    ]
    for make in modules:
        for path, param in nnx.to_flat_state(nnx.state(nnx.eval_shape(make))):
            axes = param.get_metadata().get("axes")
            stacked = int(path[0] in ("blocks", "projections"))
            assert axes is not None and len(axes) + stacked == len(param.shape), path


def test_too_few_devices_are_named():
    with pytest.raises(ValueError, match="needs 16 devices; found 8"):
        sharding.make_mesh(4, 4)


def test_an_axis_without_devices_raises():
    with pytest.raises(ValueError, match="context=0; expected at least 1"):
        sharding.make_mesh(context=0)
