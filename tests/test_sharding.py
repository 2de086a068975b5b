from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import tiny
from flashmotion_jax import sharding
from flashmotion_jax.config import ControlNetConfig, DiTConfig, ResNetAdapterConfig, VAEConfig
from flashmotion_jax.models.adapters import ControlNet, ResNetAdapter
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.vae import VAE

MESHES = [(1, 1, 1), (8, 1, 1), (2, 4, 1), (1, 8, 1)]


def shard_batch(mesh, *arrays):
    return [jax.device_put(x, NamedSharding(mesh, sharding.BATCH)) for x in arrays]


@pytest.mark.parametrize("shape", MESHES)
def test_dit_and_adapter_sharded_equal_unsharded(shape):
    dit = tiny.make_dit()
    controlnet = tiny.perturbed(ControlNet(ControlNetConfig(), tiny.DIT, rngs=nnx.Rngs(1)))
    latents, timesteps, text = tiny.dit_inputs(batch=8)

    @jax.jit
    def forward(dit, controlnet, latents, timesteps, text):
        residuals = controlnet(controlnet.prepare(latents, text), latents, timesteps, 1.0)
        return dit(latents, timesteps, text, residuals)

    expected = forward(dit, controlnet, latents, timesteps, text)
    mesh = sharding.make_mesh(*shape)
    with jax.set_mesh(mesh):
        models = sharding.place((dit, controlnet), mesh)
        actual = forward(*models, *shard_batch(mesh, latents, timesteps, text))
        assert actual.sharding.spec[0] == sharding.BATCH[0]
    np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1)])
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
