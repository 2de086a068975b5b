from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.config import VAEConfig
from flashmotion_jax.converters import vae as names
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.models.linear_code import LinearCode
from flashmotion_jax.models.streaming import Stream
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.models.vae_blocks import SpatialAttention, conv3d
from flashmotion_jax.runtime.jit import compiling_for
from helpers import tiny
from helpers.parity import channels_first, channels_last, state_dict

GOLDEN = Path(__file__).parent / "golden" / "vae.npz"
#: Levels, blocks and time steps as published; only the widths are small.
CONFIG = VAEConfig(encoder_dim=8, decoder_dim=8)

# Run eagerly, each operation of a VAE is compiled on its own, which takes twice as long.
encode = jax.jit(lambda vae, video: vae.encode(video))
decode = jax.jit(lambda vae, latents: vae.decode(latents))
encode_chunk = jax.jit(lambda vae, frames, past: vae.encode_chunk(frames, past))
decode_chunk = jax.jit(lambda vae, latents, past: vae.decode_chunk(latents, past))
moments = jax.jit(lambda vae, video: vae.moments(video))
reconstruct = jax.jit(lambda vae, mean: vae.reconstruct(mean))


def make_vae(**kwargs):
    return tiny.make_vae(CONFIG, **kwargs)


def make_video(frames, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (1, frames, height, width, 3)).astype(np.float32)


def make_latents(frames, height, width):
    return 0.5 * tiny.normal(1, 1, frames, height, width, 48)


def make_reference(vae):
    """diffusers' autoencoder with the same weights."""
    diffusers = pytest.importorskip("diffusers")
    settings = json.loads(json.dumps(names.write_config(vae.config)))
    del settings["_class_name"]
    reference = diffusers.AutoencoderKLWan(**settings)
    reference.load_state_dict(state_dict(vae, names.table(vae.config, "diffusers")), strict=True)
    return reference.eval()


def run_reference(reference, video, latents):
    """Normalized latents of the video, and the video of normalized latents."""
    import torch

    mean, std = (np.array(x, np.float32) for x in (CONFIG.latents_mean, CONFIG.latents_std))
    with torch.no_grad():
        encoded = reference.encode(channels_first(video)).latent_dist.mode()
        decoded = reference.decode(channels_first(np.asarray(latents) * std + mean)).sample
    return (channels_last(encoded) - mean) / std, channels_last(decoded)


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 32, 48), (5, 32, 64), (9, 64, 32), (17, 16, 32)]
)
def test_equals_diffusers(frames, height, width):
    pytest.importorskip("torch")
    vae = make_vae()
    video = make_video(frames, height, width)
    latents = make_latents((frames + 3) // 4, height // 16, width // 16)
    encoded, decoded = run_reference(make_reference(vae), video, latents)
    np.testing.assert_allclose(encode(vae, video), encoded, rtol=0, atol=2e-5)
    np.testing.assert_allclose(decode(vae, latents), decoded, rtol=0, atol=2e-5)


def golden_outputs():
    vae, video, latents = make_vae(), make_video(5, 32, 48), make_latents(2, 2, 3)
    return vae, video, latents


def test_equals_stored_outputs_of_diffusers():
    vae, video, latents = golden_outputs()
    stored = np.load(GOLDEN)
    np.testing.assert_allclose(encode(vae, video), stored["encoded"], rtol=0, atol=2e-5)
    decoded = decode(vae, latents)[:, :, ::4, ::4]
    np.testing.assert_allclose(decoded, stored["decoded"], rtol=0, atol=2e-5)


def test_full_size_has_the_published_number_of_parameters():
    vae = nnx.eval_shape(lambda: VAE(VAEConfig(), rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(vae)) == 704_688_668
    video = jax.ShapeDtypeStruct((1, 121, 704, 1280, 3), jnp.float32)
    latents = jax.eval_shape(lambda vae, x: vae.encode(x), vae, video)
    assert latents.shape == (1, 31, 44, 80, 48)
    decoded = jax.eval_shape(lambda vae, x: vae.decode(x), vae, latents)
    assert decoded.shape == video.shape and decoded.dtype == jnp.float32


def test_a_video_in_parts_is_the_whole_video():
    """Causal: what is encoded or decoded of the beginning does not know the end."""
    vae, video = make_vae(), make_video(13, 16, 32)
    latents = encode(vae, video)
    np.testing.assert_allclose(encode(vae, video[:, :5]), latents[:, :2], atol=1e-6)
    whole = decode(vae, latents)
    np.testing.assert_allclose(decode(vae, latents[:, :2]), whole[:, :5], atol=1e-6)


def test_chunks_handed_over_by_the_caller_are_the_whole_video():
    vae, video = make_vae(), make_video(13, 16, 32)
    latents, past = [], None
    for frames in (video[:, :1], video[:, 1:5], video[:, 5:]):
        chunk, past = encode_chunk(vae, frames, past)
        latents.append(chunk)
    latents = jnp.concatenate(latents, axis=1)
    np.testing.assert_allclose(latents, encode(vae, video), atol=1e-5)
    parts, past = [], None
    for frames in (latents[:, :1], latents[:, 1:3], latents[:, 3:]):
        chunk, past = decode_chunk(vae, frames, past)
        parts.append(chunk)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), decode(vae, latents), atol=1e-5)


def test_space_is_halved_where_it_is_asked_for():
    """Time twice and space once, from cells of 4 x 4 pixels; chunk after chunk as before."""
    config = VAEConfig(
        latent_channels=6,
        encoder_dim=8,
        decoder_dim=8,
        multipliers=(1, 2, 2),
        num_res_blocks=1,
        temporal_downsample=(True, True),
        spatial_downsample=(True, False),
        patch_size=4,
        latents_mean=(0.0,) * 6,
        latents_std=(1.0,) * 6,
    )
    vae, video = tiny.make_vae(config), make_video(9, 16, 24)
    assert (config.spatial_factor, config.temporal_factor) == (8, 4)
    latents = encode(vae, video)
    assert latents.shape[1:] == config.latent_shape(9, 16, 24) == (3, 2, 3, 6)
    whole = decode(vae, latents)
    assert whole.shape == video.shape
    np.testing.assert_allclose(decode(vae, latents[:, :2]), whole[:, :5], atol=1e-6)


def test_a_linear_code_is_added_to_mean_and_pixels():
    """Chunk after chunk: one matrix for the first frame, one for four frames at a time."""
    config = dataclasses.replace(CONFIG, linear_code=True)
    vae, video = tiny.make_vae(config), make_video(9, 32, 48)
    code = vae.linear_code
    for decoder in code.decoders:
        decoder.kernel[...] = decoder.kernel[...].at[:].set(0.01)
    mean, log_variance = moments(vae, video)
    pixels = reconstruct(vae, mean)
    vae.linear_code = None
    plain, same = moments(vae, video)
    np.testing.assert_array_equal(log_variance, same)
    parts = [(video[:, :1], True), (video[:, 1:5], False), (video[:, 5:], False)]
    expected = [code.encode(frames, is_first) for frames, is_first in parts]
    np.testing.assert_allclose(mean - plain, jnp.concatenate(expected, axis=1), atol=1e-5)
    decoded = [code.decode(mean[:, i : i + 1], i == 0) for i in range(3)]
    difference = pixels - reconstruct(vae, mean)
    np.testing.assert_allclose(difference, jnp.concatenate(decoded, axis=1), atol=1e-5)


def test_a_linear_code_takes_pixels_in_the_order_in_which_it_returns_them():
    config = dataclasses.replace(
        CONFIG,
        latent_channels=768,
        latents_mean=(0.0,) * 768,
        latents_std=(1.0,) * 768,
        linear_code=True,
    )
    code = LinearCode(config, policy=FLOAT32, rngs=nnx.Rngs(0))
    for coder in (code.encoders[0], code.decoders[0]):
        coder.kernel[...] = jnp.eye(768)
    frame = make_video(1, 32, 48)
    np.testing.assert_allclose(code.decode(code.encode(frame, True), True), frame, atol=1e-6)


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_the_program_does_not_grow_with_the_frames(direction):
    vae = make_vae()

    def size(frames):
        if direction == "encode":
            return str(jax.make_jaxpr(vae.encode)(make_video(frames, 16, 16))).count("\n")
        return str(jax.make_jaxpr(vae.decode)(make_latents((frames + 3) // 4, 1, 1))).count("\n")

    assert size(9) == size(41)


def test_middle_attention_mixes_positions_of_a_frame_and_no_frames():
    """The known fault is attention over the wrong axis, which changes nothing."""
    attention = tiny.random_module(
        lambda: SpatialAttention(8, policy=FLOAT32, rngs=nnx.Rngs(0)), seed=3
    )
    x = tiny.normal(0, 1, 3, 2, 4, 8)
    moved = attention(x.at[0, 1, 0, 0].add(1.0), Stream()) - attention(x, Stream())
    changed = np.abs(moved).max(axis=-1)[0] > 1e-6
    assert changed[1].all() and not changed[0].any() and not changed[2].any()


@pytest.mark.parametrize("time_stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_all_backends_spell_the_same_convolution(size, time_stride):
    x, kernel = tiny.normal(0, 2, 7, 6, 5, 4), tiny.normal(1, 3, size, size, 4, 8)
    expected = conv3d(x, kernel, time_stride)
    for backend in ("gpu", "tpu"):
        with compiling_for(backend):
            np.testing.assert_allclose(conv3d(x, kernel, time_stride), expected, atol=2e-5)


def test_bfloat16_decode_stays_near_float32_and_encode_is_float32():
    rounded = make_vae(policy=Policy(jnp.bfloat16, jnp.bfloat16))
    vae, video, latents = golden_outputs()
    np.testing.assert_array_equal(encode(rounded, video), encode(vae, video))
    exact = decode(vae, latents)
    error = np.linalg.norm(decode(rounded, latents) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 3e-2


def test_encoding_in_bfloat16_is_asked_for_and_stays_near_float32():
    vae, video, _ = golden_outputs()
    first, past = vae.encode_chunk(video[:, :1], dtype=jnp.bfloat16)
    assert {x.dtype for x in past} == {jnp.dtype(jnp.bfloat16)}
    more, _ = vae.encode_chunk(video[:, 1:], past, jnp.bfloat16)
    rounded, exact = jnp.concatenate([first, more], axis=1), encode(vae, video)
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert rounded.dtype == jnp.float32 and 1e-4 < error < 3e-2


def test_latents_are_normalized_and_the_video_is_clipped():
    vae, video, latents = golden_outputs()
    plain = tiny.make_vae(
        VAEConfig(encoder_dim=8, decoder_dim=8, latents_mean=(0.0,) * 48, latents_std=(1.0,) * 48)
    )
    mean, std = np.array(CONFIG.latents_mean), np.array(CONFIG.latents_std)
    np.testing.assert_allclose(
        encode(vae, video), (np.asarray(encode(plain, video)) - mean) / std, rtol=1e-4, atol=1e-5
    )
    assert np.abs(decode(vae, 50 * latents)).max() == 1.0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 32, 32, 3), "4 frames; expected 4 n \\+ 1, for instance 1"),
        ((1, 5, 30, 32, 3), "30 x 32; expected multiples of 16"),
        ((1, 3, 5, 32, 32), r"expected \[B, F, H, W, 3\]"),
    ],
)
def test_wrong_videos_raise(shape, message):
    with pytest.raises(ValueError, match=message):
        make_vae().encode(jnp.zeros(shape))


def test_wrong_latents_raise():
    with pytest.raises(ValueError, match="channels last"):
        make_vae().decode(jnp.zeros((1, 48, 2, 2, 2)))


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    vae, video, latents = golden_outputs()
    encoded, decoded = run_reference(make_reference(vae), video, latents)
    np.savez_compressed(GOLDEN, encoded=encoded, decoded=decoded[:, :, ::4, ::4])
