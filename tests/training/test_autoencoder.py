"""An autoencoder trained on a MagicData folder: windows, latent statistics, and the result."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    AutoencoderConfig,
    OptimizerConfig,
    PatchDiscriminatorConfig,
    SamplingConfig,
    TrainConfig,
)
from flashmotion_jax.data.magicdata import MagicData
from flashmotion_jax.data.pixel_batches import PixelBatch, pixel_batches
from flashmotion_jax.models import layers
from flashmotion_jax.models.patch_discriminator import PatchDiscriminator
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.sharding import make_mesh
from flashmotion_jax.training import inputs
from flashmotion_jax.training.dry_run import describe
from flashmotion_jax.training.stages import autoencoder
from flashmotion_jax.training.train_step import Keys
from flashmotion_jax.training.trainer import train
from helpers import magicdata_tree, tiny

FRAMES, HEIGHT, WIDTH = 9, 32, 64
STEPS = 12
#: Two levels instead of four: programs with half as many operations to compile.
VAE_CONFIG = dataclasses.replace(tiny.VAE_CONFIG, multipliers=(1, 1), temporal_downsample=(True,))


def stage(folder, **changes):
    return AutoencoderConfig(
        autoencoder=str(folder / "base"),
        data_root=str(folder / "data"),
        num_frames=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        window_frames=5,
        windows_per_video=2,
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.0),
        **changes,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    tiny.save_checkpoint(folder / "base", SamplingConfig(num_frames=9, height=32, width=64))
    components.save_component(
        folder / "base",
        "vae",
        VAE_CONFIG,
        components.parameter_readers(tiny.make_vae(VAE_CONFIG)),
        "float32",
        overwrite=True,
    )
    for index in range(3):
        magicdata_tree.add_video(folder / "data", f"clip{index}", index)
    rows = [(f"videos/clip{i}.mp4", "a square moves", FRAMES, 8, 5) for i in range(3)]
    magicdata_tree.write_csv(folder / "data", rows)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    config = TrainConfig(
        stage=stage(folder),
        workdir=str(folder / "run"),
        num_train_steps=STEPS,
        batch_size=2,
        dtype="float32",
        remat="none",
        log_every=1,
        save_every=STEPS,
        sample_every=STEPS,
    )
    return config, train(config, quiet=True)


def test_the_loss_falls_and_samples_show_video_and_reconstruction(folder, run):
    _, result = run
    lines = [json.loads(line) for line in (result.workdir / "log.jsonl").read_text().splitlines()]
    pixels = [line["autoencoder/loss/pixels"] for line in lines]
    assert np.mean(pixels[-3:]) < 0.9 * np.mean(pixels[:3])
    assert len(list((result.workdir / "samples").rglob("*.mp4"))) == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_sprites_are_drawn_when_they_are_read(folder, num_workers):
    """Batches follow the order of the seed, and can resume in the middle, also in threads alone."""
    settings = stage(folder, data="sprites", num_clips=7)
    source = inputs.open_videos(settings)
    clips = [source[index] for index in range(7)]
    mesh = make_mesh(1, 1)
    options = {"batch_size": 2, "seed": 3, "mesh": mesh, "num_threads": 1}

    def numbers(batches, count):
        batch = [next(batches) for _ in range(count)]
        videos = np.concatenate([np.asarray(part.video) for part in batch])
        return [next(n for n in range(7) if (clips[n].video == v).all()) for v in videos]

    batches = pixel_batches(source, num_workers=num_workers, **options)
    first, state = numbers(batches, 3), batches.get_state()
    later = pixel_batches(source, **options)
    later.set_state(state)
    assert len(set(first)) == 6
    assert numbers(later, 4) == numbers(batches, 4)
    batch = next(pixel_batches(source, **options))
    np.testing.assert_array_equal(batch.masks[0], clips[first[0]].masks)
    np.testing.assert_array_equal(batch.boxes[0], clips[first[0]].boxes)


def test_latents_of_the_result_are_normalized(folder, run):
    _, result = run
    vae = components.load_component(result.model, "vae", "float32")
    videos = MagicData(folder / "data", num_frames=FRAMES, height=HEIGHT, width=WIDTH)
    encode = jax.jit(lambda video: vae.encode(video[None].astype(jnp.float32) / 127.5 - 1))
    latents = np.concatenate([encode(jnp.asarray(videos[i].video)) for i in range(3)])
    np.testing.assert_allclose(latents.mean((0, 1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(latents.std((0, 1, 2, 3)), 1, atol=1e-3)


def moved_parts(*paths):
    """The parts of the autoencoder whose parameters differ between two checkpoints."""
    before, after = (
        components.flat_parameters(components.load_component(path, "vae", "float32"))
        for path in paths
    )
    return {
        name.split(".")[0]
        for name, variable in after.items()
        if (np.asarray(variable.get_value()) != np.asarray(before[name].get_value())).any()
    }


def test_decoder_only_does_not_change_the_latents(folder):
    config = TrainConfig(
        stage=stage(folder, decoder_only=True, map_fraction=0.0),
        workdir=str(folder / "decoder"),
        num_train_steps=2,
        batch_size=2,
        dtype="float32",
        remat="none",
        sample_every=2,
    )
    result = train(config, quiet=True)
    read = [
        components.read_component(path, "vae").config for path in (folder / "base", result.model)
    ]
    assert read[0] == read[1]
    assert moved_parts(folder / "base", result.model) == {"conv2", "decoder"}


def test_the_adversarial_loss_trains_decoder_and_discriminator(folder):
    """Both models are trained; the encoder is not."""
    settings = stage(
        folder,
        decoder_only=True,
        map_fraction=0.0,
        adversarial_scale=0.1,
        discriminator=PatchDiscriminatorConfig(dim=4),
        discriminator_optimizer=OptimizerConfig(learning_rate=1e-3),
        separate_gradients=True,
    )
    config = TrainConfig(
        stage=settings,
        workdir=str(folder / "adversarial"),
        num_train_steps=2,
        batch_size=2,
        dtype="float32",
        remat="none",
        log_every=1,
        sample_every=0,
    )
    result = train(config, quiet=True)
    lines = [json.loads(line) for line in (result.workdir / "log.jsonl").read_text().splitlines()]
    assert {"autoencoder/gradient_norm/adversarial", "discriminator/accuracy"} <= lines[0].keys()
    assert lines[0]["autoencoder/weight/adversarial"] == pytest.approx(0.1)
    assert moved_parts(folder / "base", result.model) == {"conv2", "decoder"}


def test_an_adversarial_loss_needs_an_optimizer(folder):
    with pytest.raises(ValueError, match=r"adversarial_scale=0\.1; expected above 0 with"):
        stage(folder, adversarial_scale=0.1)


def test_logits_are_of_patches_of_consecutive_frames():
    """A pixel affects the logits of its frame and the next two, within 13 pixels."""
    module = PatchDiscriminator(
        PatchDiscriminatorConfig(dim=4), policy=layers.FLOAT32, rngs=nnx.Rngs(0)
    )
    video = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 6, 64, 64, 3)), jnp.float32)
    run = jax.jit(PatchDiscriminator.__call__)
    logits = run(module, video)
    assert logits.shape == (2, 4, 16, 16, 1) and logits.dtype == jnp.float32
    changed = np.argwhere(np.asarray(run(module, video.at[1, 3, 32, 32].add(0.5)) != logits))
    assert set(changed[:, 0]) == {1} and set(changed[:, 1]) == {1, 2, 3}
    assert (np.abs(changed[:, 2:4] * 4 + 2 - 32) <= 13 + 2).all()


@pytest.mark.parametrize("changes", [{"weight_decay": 0.01}, {"ema_decay": 0.9}])
def test_decoder_only_rejects_settings_that_change_the_encoder(folder, changes):
    settings = {"learning_rate": 3e-3, "weight_decay": 0.0} | changes
    fields = dataclasses.asdict(stage(folder)) | {"optimizer": OptimizerConfig(**settings)}
    with pytest.raises(ValueError, match=f"decoder_only with {next(iter(changes))}="):
        AutoencoderConfig(**fields | {"decoder_only": True})


def test_a_dry_run_describes_pixels(run):
    config, _ = run
    lines = list(describe(config))
    assert f"batch.video: uint8 [2, {FRAMES}, {HEIGHT}, {WIDTH}, 3]" in "\n".join(lines)


def test_map_fraction_of_the_windows_are_maps(folder):
    shape = (400, FRAMES, 1, 1, 3)
    frames = jnp.broadcast_to(jnp.arange(FRAMES).reshape(1, -1, 1, 1, 1), shape)
    batch = PixelBatch(*(frames + 100 * i for i in range(3)))
    keys = Keys(jax.random.key(0), jax.random.split(jax.random.key(1), 400))
    windows = np.asarray(autoencoder._draw_window(stage(folder, map_fraction=0.4), batch, keys))
    assert windows.shape == (400, 5, 1, 1, 3)
    assert np.all(np.diff(windows, axis=1) == 1)
    share = np.bincount(windows[:, 0, 0, 0, 0] // 100, minlength=3) / 400
    np.testing.assert_allclose(share, [0.6, 0.2, 0.2], atol=0.06)


def test_the_kl_divergence_is_that_of_torch(folder):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    mean, log_variance = rng.standard_normal((2, 7, 5), np.float32)
    normal = torch.distributions.Normal(
        torch.tensor(mean), torch.tensor(np.exp(0.5 * log_variance))
    )
    unit = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(normal, unit).mean()
    found = autoencoder.kl_divergence(jnp.asarray(mean), jnp.asarray(log_variance))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_the_chunk_size_does_not_change_the_result():
    vae = tiny.make_vae()
    video = np.random.default_rng(0).uniform(-1, 1, (1, 9, 32, 32, 3)).astype(np.float32)
    moments = jax.jit(VAE.moments, static_argnames="chunk")
    short, long = (moments(vae, jnp.asarray(video), chunk=chunk)[0] for chunk in (1, 2))
    np.testing.assert_allclose(short, long, atol=2e-5)
    reconstruct = jax.jit(VAE.reconstruct, static_argnames="chunk")
    first, second = (reconstruct(vae, short, chunk=chunk) for chunk in (1, 2))
    np.testing.assert_allclose(first, second, atol=2e-5)


def test_statistics_of_latents_far_from_zero():
    """The mean square minus the squared mean would give a deviation of 0 here, in float32."""

    class Shifted(nnx.Module):
        def moments(self, video):
            return 100 + 0.02 * video[..., :2], None

    videos = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16, 3), np.uint8)
    mean, std = autoencoder.latent_statistics(Shifted(), videos)
    latents = 100 + 0.02 * (videos[..., :2] / 127.5 - 1)
    np.testing.assert_allclose(mean, latents.mean((0, 1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, latents.std((0, 1, 2, 3)), rtol=2e-3)
