from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
import pytest

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.checkpoints.init import NewModelConfig, init_checkpoint, init_component
from flashmotion_jax.checkpoints.models import load_models
from flashmotion_jax.config import (
    SamplingConfig,
    TextEncoderConfig,
    VAEConfig,
)
from helpers import tiny

CONFIG = NewModelConfig(
    words=("a", "ball", "moves", "red"),
    dit=dataclasses.replace(tiny.DIT, in_channels=4, out_channels=4, freq_dim=16),
    vae=VAEConfig(
        latent_channels=4,
        encoder_dim=4,
        decoder_dim=4,
        multipliers=(1, 1),
        num_res_blocks=1,
        temporal_downsample=(True,),
        latents_mean=(0.0,) * 4,
        latents_std=(1.0,) * 4,
    ),
    text_encoder=TextEncoderConfig(
        vocab_size=16, dim=32, num_heads=2, head_dim=16, ffn_dim=32, num_layers=1
    ),
    sampling=SamplingConfig(sampler="euler", negative_prompt=""),
)


def values(module):
    return {name: np.asarray(v.get_value()) for name, v in flat_parameters(module).items()}


def test_it_is_a_whole_checkpoint_and_stays(tmp_path):
    folder = tmp_path / "fresh"
    num_parameters = init_checkpoint(folder, CONFIG)
    models = load_models(folder, "float32")
    for name, value in vars(models.config).items():
        assert value == getattr(CONFIG, name)
    arrays = [
        *(values(models.dit) | values(models.vae)).values(),
        *values(models.text_encoder).values(),
    ]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert sum(array.size for array in arrays) == num_parameters
    ids, mask = models.tokenizer(["a red ball moves"], 8)
    assert mask.sum() == 5 and ids.max() < CONFIG.text_encoder.vocab_size
    assert [file.name for file in tmp_path.iterdir()] == ["fresh"]
    with pytest.raises(ValueError, match="exists; choose another folder"):
        init_checkpoint(folder, CONFIG)
    assert load_models(folder).config == models.config


def test_the_dit_starts_as_the_identity_with_velocity_zero_and_can_leave_both():
    dit = init_component("dit", CONFIG.dit, seed=0)
    latents, timesteps, text = tiny.dit_inputs(1, 3, 4, 4, 8, CONFIG.dit)

    @jax.jit
    def run(dit):
        def loss(dit):
            velocity = dit(latents, timesteps, text)
            last = dit.block_outputs(latents, timesteps, text, (2,))
            outputs = (velocity, last[0], dit.embed_patches(latents))
            return ((velocity - latents) ** 2).sum() + (last**3).sum(), outputs

        return jax.grad(loss, has_aux=True)(dit)

    gradient, (velocity, after_blocks, before_blocks) = run(dit)
    assert not velocity.any()
    np.testing.assert_array_equal(after_blocks, before_blocks)
    slopes = values(gradient)
    for name in ("head.head.kernel", "head.head.bias", "time_projection.kernel"):
        assert slopes[name].any()
    assert slopes["blocks.modulation"][:, [2, 5]].any(axis=-1).all()  # both gates of all blocks
    assert slopes["blocks.cross_attn.o.kernel"].any(axis=(1, 2)).all()


def test_the_text_encoder_has_the_scales_of_umt5():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = dataclasses.replace(CONFIG.text_encoder, vocab_size=2048)
    theirs = transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=config.vocab_size,
            d_model=config.dim,
            d_kv=config.head_dim,
            num_heads=config.num_heads,
            d_ff=config.ffn_dim,
            num_layers=config.num_layers,
            feed_forward_proj="gated-gelu",
        )
    )
    attention = theirs.encoder.block[0].layer[0].SelfAttention
    ours = values(init_component("text_encoder", config, seed=0))
    for name, weight in (
        ("token_embedding.embedding", theirs.shared.weight),
        ("blocks.attn.q.kernel", attention.q.weight),
        ("blocks.attn.k.kernel", attention.k.weight),
        ("blocks.attn.o.kernel", attention.o.weight),
    ):
        expected = torch.std(weight.detach()).item()
        assert ours[name].std() == pytest.approx(expected, rel=0.15), name
    again, other = (values(init_component("text_encoder", config, seed)) for seed in (0, 1))
    for name, array in ours.items():
        np.testing.assert_array_equal(array, again[name])
        assert name.endswith("scale") or (array != other[name]).any()


def test_what_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="word 'Red'; expected"):
        init_checkpoint(tmp_path / "fresh", dataclasses.replace(CONFIG, words=("Red",)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"words": tuple("abcdefghijk")},
            "17 tokens .* for text_encoder.vocab_size=16; raise it to 17",
        ),
        (
            {"dit": dataclasses.replace(CONFIG.dit, in_channels=8)},
            "dit.in_channels=8; expected vae.latent_channels, which is 4",
        ),
        (
            {"dit": dataclasses.replace(CONFIG.dit, out_channels=8)},
            "dit.out_channels=8; expected vae.latent_channels, which is 4",
        ),
        (
            {"dit": dataclasses.replace(CONFIG.dit, text_dim=8)},
            "dit.text_dim=8; expected text_encoder.dim, which is 32",
        ),
    ],
)
def test_inconsistent_sizes_raise(changes, message):
    with pytest.raises(ValueError, match=re.compile(message)):
        dataclasses.replace(CONFIG, **changes)


def test_a_fresh_autoencoder_looks_at_no_chunk_before():
    channels = {"latent_channels": 8, "latents_mean": (0.0,) * 8, "latents_std": (1.0,) * 8}
    config = dataclasses.replace(
        tiny.VAE_CONFIG, multipliers=(1, 2, 2), temporal_downsample=(True, True), **channels
    )
    vae = init_component("vae", config, 0)
    video = np.random.default_rng(0).uniform(-1, 1, (1, 9, 16, 24, 3)).astype(np.float32)
    other = np.concatenate([-video[:, :5], video[:, 5:]], axis=1)
    run = jax.jit(lambda vae, video: vae.decode(vae.encode(video)))
    first, second = np.asarray(run(vae, video)), np.asarray(run(vae, other))
    np.testing.assert_array_equal(first[:, 5:], second[:, 5:])
    assert np.abs(first[:, :5] - second[:, :5]).max() > 0.1
