"""The tiny autoencoder against stored numbers of TAEHV's own code, on random weights.

`python tests/models/test_tiny_vae.py taehv.py` stores them again, from a copy of
https://github.com/madebyollin/taehv.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from flashmotion_jax.config import TinyVAEConfig
from flashmotion_jax.converters import tiny_vae as names
from flashmotion_jax.models.tiny_vae import TinyVAE
from flashmotion_jax.runtime.flops import count_flops
from flashmotion_jax.runtime.sharding import BATCH, make_mesh, place
from helpers import parity, tiny

GOLDEN = Path(__file__).parent / "golden" / "tiny_vae.npz"
CONFIGS = {
    "base": TinyVAEConfig(),
    "super": TinyVAEConfig(decoder="super", decoder_dims=(512, 256, 128, 64)),
}
SMALL = TinyVAEConfig(encoder_dim=8, decoder_dims=(16, 8, 8, 8))
VIDEO = np.random.default_rng(0).uniform(-1, 1, (1, 9, 32, 48, 3)).astype(np.float32)
LATENTS = np.random.default_rng(1).standard_normal((1, 3, 2, 3, 48)).astype(np.float32)


def make(config, seed=0):
    return tiny.random_module(lambda: TinyVAE(config, rngs=nnx.Rngs(0)), seed)


def reference(module, kind):
    """What TAEHV's own code makes of the video and of the latents, in our layout."""
    import torch

    torch_model = module.TAEHV(
        None, patch_size=2, latent_channels=48, arch_variant="super" if kind == "super" else None
    )
    config = CONFIGS[kind]
    torch_model.load_state_dict(parity.state_dict(make(config), names.table(config, "original")))

    def frames_first(x):
        return torch.tensor(np.moveaxis(x, -1, 2).copy())

    with torch.no_grad():
        encoded = torch_model.encode_video(frames_first(VIDEO / 2 + 0.5), show_progress_bar=False)
        decoded = torch_model.decode_video(frames_first(LATENTS), show_progress_bar=False)
    encoded, decoded = (np.moveaxis(x.numpy(), 2, -1) for x in (encoded, decoded))
    return {f"{kind}_encoded": encoded, f"{kind}_decoded": (2 * decoded - 1)[:, :, ::7, ::7]}


def store_golden(file):
    spec = importlib.util.spec_from_file_location("taehv", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    np.savez_compressed(GOLDEN, **reference(module, "base"), **reference(module, "super"))


@pytest.mark.parametrize("kind", CONFIGS)
def test_equals_taehv(kind):
    stored = np.load(GOLDEN)
    vae = make(CONFIGS[kind])
    encoded, decoded = jax.jit(TinyVAE.encode)(vae, VIDEO), jax.jit(TinyVAE.decode)(vae, LATENTS)
    assert decoded.shape == (1, 9, 32, 48, 3)
    np.testing.assert_allclose(encoded, stored[f"{kind}_encoded"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        decoded[:, :, ::7, ::7], stored[f"{kind}_decoded"], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("kind", "millions"), [("base", 11.418), ("super", 20.488)])
def test_has_the_published_number_of_weights(kind, millions):
    abstract = nnx.eval_shape(lambda: TinyVAE(CONFIGS[kind], rngs=nnx.Rngs(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract)))
    assert count / 1e6 == pytest.approx(millions, abs=1e-3)


@pytest.mark.parametrize(("kind", "tera"), [("base", 7.96), ("super", 13.51)])
def test_flops_of_a_video_of_the_published_size(kind, tera):
    """The VAE takes 1,849 TFLOP."""
    abstract = nnx.eval_shape(lambda: TinyVAE(CONFIGS[kind], rngs=nnx.Rngs(0)))
    latents = jax.ShapeDtypeStruct((1, 31, 44, 80, 48), jnp.float32)
    assert count_flops(TinyVAE.decode, abstract, latents) / 1e12 == pytest.approx(tera, abs=0.01)


@pytest.mark.parametrize("kind", CONFIGS)
def test_sizes_are_read_from_the_weights(kind):
    tensors = parity.state_dict(make(CONFIGS[kind]), names.table(CONFIGS[kind], "original"))
    assert names.from_shapes(tensors, "original", None) == CONFIGS[kind]


@pytest.mark.parametrize(
    "changes",
    [{"num_blocks": 1}, {"spatial_downsample": (True, True, False)}, {"linear_code": True}],
)
def test_sizes_that_taehv_lacks_cannot_be_exported(changes):
    with pytest.raises(ValueError, match="cannot be exported"):
        names.table(TinyVAEConfig(**changes), "original")


@pytest.mark.parametrize("decoder", ["base", "super"])
def test_a_level_may_keep_height_and_width(decoder):
    """Of Sprites: patches of 4 x 4, then one halving, in the second level."""
    config = dataclasses.replace(
        SMALL,
        decoder=decoder,
        num_blocks=1,
        patch_size=4,
        temporal_downsample=(False, True, True),
        spatial_downsample=(False, True, False),
    )
    assert (config.spatial_factor, config.temporal_factor) == (8, 4)
    vae = nnx.eval_shape(lambda: TinyVAE(config, rngs=nnx.Rngs(0)))
    assert jax.eval_shape(TinyVAE.encode, vae, VIDEO).shape == (1, 3, 4, 6, 48)
    assert jax.eval_shape(TinyVAE.decode, vae, LATENTS).shape == (1, 9, 16, 24, 3)


def test_a_new_block_is_the_identity():
    """Convolutions to the residual stream start at zero."""
    vae = TinyVAE(SMALL, rngs=nnx.Rngs(0))
    assert not vae.decoder.levels[0].blocks[0].conv3.kernel[...].any()


def test_chunks_of_any_length_give_the_whole_video():
    vae, decode_chunk = make(SMALL), jax.jit(TinyVAE.decode_chunk)
    whole = jax.jit(TinyVAE.decode)(vae, LATENTS)
    first, past = decode_chunk(vae, LATENTS[:, :1])
    rest, _ = decode_chunk(vae, LATENTS[:, 1:], past)
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), whole, atol=1e-6)
    unclipped = vae.reconstruct(LATENTS, 2)
    np.testing.assert_allclose(jnp.clip(unclipped, -1, 1), whole, atol=1e-6)
    np.testing.assert_allclose(vae.encode(VIDEO, 2), jax.jit(TinyVAE.encode)(vae, VIDEO), atol=1e-5)
    assert jax.eval_shape(vae.encode, VIDEO[:, :1]).shape == (1, 1, 2, 3, 48)


def test_a_batch_may_be_split_over_devices():
    vae, mesh = make(SMALL), make_mesh(2, 1)
    latents = np.concatenate([LATENTS, -LATENTS])
    with jax.set_mesh(mesh):
        split = jax.device_put(latents, NamedSharding(mesh, BATCH))
        found = jax.jit(TinyVAE.decode)(place(vae, mesh), split)
        assert found.sharding.spec[0] == BATCH[0]
        encoded = jax.jit(TinyVAE.encode)(place(vae, mesh), found)
    expected = jax.jit(TinyVAE.decode)(vae, latents)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(encoded, jax.jit(TinyVAE.encode)(vae, expected), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 32, 48, 3), "4 n \\+ 1, H, W, 3"),
        ((1, 9, 32, 40, 3), "multiples of 16"),
        ((1, 9, 32, 48, 4), r"\(1, 9, 32, 48, 4\)"),
    ],
)
def test_videos_that_do_not_fit_raise(shape, message):
    with pytest.raises(ValueError, match=message):
        make(SMALL).encode(jnp.zeros(shape))


def test_latents_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="expected \\[B, T, h, w, 48\\]"):
        make(SMALL).decode(jnp.zeros((1, 3, 2, 3, 16)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decoder_dims": (8, 8)}, "expected 4 values"),
        ({"temporal_downsample": (True,)}, "expected 3 values"),
        ({"encoder_dim": 0}, "encoder_dim=0"),
    ],
)
def test_invalid_sizes_raise(values, message):
    with pytest.raises(ValueError, match=message):
        TinyVAEConfig(**values)


if __name__ == "__main__":
    store_golden(sys.argv[1])
