"""A tiny autoencoder distilled from a frozen VAE."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    OptimizerConfig,
    SamplingConfig,
    TinyAutoencoderConfig,
    TinyVAEConfig,
    TrainConfig,
    VAEConfig,
)
from flashmotion_jax.models.tiny_vae import TinyVAE
from flashmotion_jax.training.stage import ExportSpec
from flashmotion_jax.training.stages import build_stage, tiny_autoencoder
from flashmotion_jax.training.trainer import train
from flashmotion_jax.training.workdir import export_model
from helpers import tiny

STEPS = 12
SAMPLING = SamplingConfig(num_frames=9, height=32, width=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "base", SAMPLING).parent


def config(folder, **changes):
    stage = TinyAutoencoderConfig(
        autoencoder=str(folder / "base"),
        tiny_vae=changes.pop("tiny_vae", tiny.TINY_VAE),
        data="sprites",
        num_clips=8,
        num_frames=9,
        height=32,
        width=64,
        window_frames=5,
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.0),
        **changes,
    )
    return TrainConfig(
        stage=stage,
        workdir=str(folder / "run"),
        num_train_steps=STEPS,
        batch_size=2,
        dtype="float32",
        remat="none",
        log_every=1,
        save_every=STEPS,
        sample_every=STEPS,
    )


@pytest.fixture(scope="module")
def result(folder):
    return train(config(folder), quiet=True)


def test_all_losses_fall_and_samples_are_written(result):
    lines = [json.loads(line) for line in (result.workdir / "log.jsonl").read_text().splitlines()]
    for name in ("pixels", "latents"):
        values = [line[f"tiny_vae/loss/{name}"] for line in lines]
        assert np.mean(values[-3:]) < np.mean(values[:3])
    expected = np.sqrt(lines[0]["tiny_vae/loss/latents"])
    assert lines[0]["tiny_vae/latent_error"] == pytest.approx(expected, rel=0.9)
    assert len(list((result.workdir / "samples").rglob("*.mp4"))) == 1


def test_the_model_has_the_new_tiny_vae_beside_the_same_vae(folder, result):
    read = components.read_component
    assert read(result.model, "vae").key == read(folder / "base", "vae").key
    assert read(result.model, "tiny_vae").key != read(folder / "base", "tiny_vae").key
    assert components.open_checkpoint(result.model).config.tiny_vae == tiny.TINY_VAE
    assert (result.model / "vae").is_symlink() and not (result.model / "tiny_vae").is_symlink()


def test_a_tiny_vae_of_other_latents_is_refused(folder):
    other = TinyVAEConfig(spatial_downsample=(True, True, False))
    with pytest.raises(ValueError, match="the VAE has spatial_factor=16 and the tiny VAE 8"):
        build_stage(config(folder, tiny_vae=other))


@pytest.mark.parametrize(("kind", "keeps"), [("dit", True), ("text_encoder", True), ("vae", False)])
def test_later_runs_keep_it_unless_they_train_the_vae(folder, tmp_path, kind, keeps):
    base = folder / "base"
    component = components.read_component(base, kind)
    module = components.load_component(base, kind, "float32")
    spec = ExportSpec("trained", kind, component.config, str(base), SAMPLING)
    state: Any = SimpleNamespace(params=module, ema=None)
    assert (export_model(tmp_path, spec, state) / "tiny_vae").exists() == keeps


def test_the_linear_code_of_the_vae_is_the_start():
    """Without convolutions, both autoencoders then are that code, normalized or not."""
    names = {"latents_mean": (0.5, -1.0), "latents_std": (2.0, 0.25)}
    vae_config = VAEConfig(
        latent_channels=2, encoder_dim=4, decoder_dim=4, num_res_blocks=1, linear_code=True, **names
    )
    vae = tiny.make_vae(vae_config)
    for name in ("conv1", "conv2"):
        module = getattr(vae, name)
        module.kernel[...], module.bias[...] = 0 * module.kernel[...], 0 * module.bias[...]
    head = vae.decoder.head_conv
    head.kernel[...], head.bias[...] = 0 * head.kernel[...], 0 * head.bias[...]
    config = dataclasses.replace(tiny.TINY_VAE, latent_channels=2, linear_code=True)
    fresh = TinyVAE(config, rngs=nnx.Rngs(0))
    tiny_vae = tiny_autoencoder.copy_linear_code(vae, fresh)
    video = 0.1 * tiny.normal(0, 1, 5, 16, 32, 3)
    latents = vae.encode(video)
    np.testing.assert_allclose(tiny_vae.encode(video), latents, atol=1e-5)
    expected = vae.reconstruct(vae.moments(video)[0])
    np.testing.assert_allclose(tiny_vae.reconstruct(latents), expected, atol=1e-5)


def test_the_error_of_edges_is_that_of_gradients():
    first, second = np.random.default_rng(0).standard_normal((2, 1, 2, 5, 7, 3)).astype(np.float32)
    expected = sum(
        np.mean((np.diff(first, axis=axis) - np.diff(second, axis=axis)) ** 2) for axis in (2, 3)
    )
    found = tiny_autoencoder.edge_error(jnp.asarray(first - second))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert tiny_autoencoder.edge_error(jnp.ones((1, 1, 4, 4, 3))) == 0
