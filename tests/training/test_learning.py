"""Fifty steps of every stage: losses fall, trained weights change, frozen weights do not."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.config import (
    DiscriminatorConfig,
    DiTConfig,
    FastAdapterConfig,
    FastGeneratorConfig,
    FewStepConfig,
    MatchingConfig,
    OptimizerConfig,
    SamplingConfig,
    ScaleConfig,
    SlowAdapterConfig,
    TrainConfig,
)
from flashmotion_jax.config.adapters import ResNetAdapterConfig
from flashmotion_jax.training.trainer import train
from helpers import small_cache, tiny

DIT = DiTConfig(dim=24, num_heads=1, ffn_dim=32, num_layers=2, text_dim=32, text_len=16)
ADAPTER = ResNetAdapterConfig(width=16)
OPTIMIZER = OptimizerConfig(learning_rate=3e-3)
STEPS = 50


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkpoint, and a cache of two clips to overfit."""
    folder = tmp_path_factory.mktemp("world")
    components.write_sampling(folder, SamplingConfig(sampler="euler", solver_steps=2, fps=12))
    for kind, config, dit_config in (
        ("dit", DIT, None),
        ("vae", tiny.VAE_CONFIG, None),
        ("adapters/resnet", ADAPTER, DIT),
    ):
        module = tiny.random_weights(
            components.abstract_module(kind, config, "float32", dit_config)
        )
        readers = components.parameter_readers(module)
        components.save_component(folder, kind, config, readers, "float32", dit_config=dit_config)
    small_cache.make_cache(folder / "cache", num_rows=2)
    return folder


def run(world, stage, **changes):
    """Trains, and returns the result, the log's lines and the frozen models' digests."""
    output = world / type(stage).__name__
    config = TrainConfig(
        stage=stage,
        cache=str(world / "cache"),
        workdir=str(output),
        num_train_steps=STEPS,
        batch_size=2,
        dtype="float32",
        remat="none",
        save_every=STEPS,
        log_every=5,
        **{"sample_every": 0} | changes,
    )
    outcome = train(config, quiet=True)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return outcome, [line for line in lines if "warning" not in line]


def values(lines, name):
    return [line[name] for line in lines if name in line]


def arrays(folder, kind):
    module = components.load_component(folder, kind, "float32")
    return {path: np.asarray(v.get_value()) for path, v in flat_parameters(module).items()}


def test_stage_1(world):
    stage = SlowAdapterConfig(slow_generator=str(world), adapter=ADAPTER, optimizer=OPTIMIZER)
    before = arrays(world, "dit")
    outcome, lines = run(world, stage, sample_every=STEPS, num_samples=2)
    losses = values(lines, "adapter/loss/diffusion")
    assert np.mean(losses[-3:]) < 0.95 * np.mean(losses[:3])
    assert {line["adapter/learning_rate"] for line in lines} == {np.float32(3e-3)}
    assert all(0 <= line["data_wait"] <= 1 and line["videos_per_second"] > 0 for line in lines)
    # Every parameter of the adapter has moved from its beginning; the generator is as it was.
    adapter = arrays(outcome.model, "adapters/resnet")
    assert all(np.any(array != 0) for path, array in adapter.items() if "projection" in path)
    np.testing.assert_equal(arrays(outcome.model, "dit"), before)
    # Two sample videos of 9 frames, the map to the left.
    from flashmotion_jax import read_video

    names = sorted(file.name for file in (outcome.workdir / "samples").iterdir())
    assert names == ["step_000050_0.mp4", "step_000050_1.mp4"]
    frames, fps = read_video(outcome.workdir / "samples" / names[0])
    assert (frames.shape, fps) == ((9, 64, 192, 3), 12.0)


def test_stage_2(world):
    stage = FastGeneratorConfig(
        slow_generator=str(world),
        optimizer=dataclasses.replace(OPTIMIZER, learning_rate=1e-4, ema_decay=0.9),
        fake_score_optimizer=OPTIMIZER,
        matching=MatchingConfig(student_every=5),
    )
    before = arrays(world, "dit")
    outcome, lines = run(world, stage)
    losses = values(lines, "fake_score/loss/diffusion")
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert len(values(lines, "generator/loss/distribution_matching")) == len(lines)
    assert all(np.isfinite(values(lines, "generator/temporal_variance")))
    after = arrays(outcome.model, "dit")
    assert all(np.any(after[path] != before[path]) for path in before)
    np.testing.assert_equal(arrays(world, "dit"), before)
    assert components.read_sampling(outcome.model).sampler == "few_step"


def test_stage_3(world):
    paths = dict.fromkeys(("slow_generator", "fast_generator", "slow_adapter"), str(world))
    stage = FastAdapterConfig(
        **paths,
        adapter="resnet",
        optimizer=OPTIMIZER,
        discriminator_optimizer=OPTIMIZER,
        discriminator=DiscriminatorConfig(block_indices=(0, 1), dim=16, num_heads=2),
        diffusion_scale=ScaleConfig(slope=0.0, offset=10.0),
        student=FewStepConfig(denoising_steps=(500,)),  # of one noise level, losses compare
        adapter_every=2,
    )
    before = arrays(world, "adapters/resnet")
    outcome, lines = run(world, stage)
    diffusion = values(lines, "adapter/loss/diffusion")
    assert np.mean(diffusion[-3:]) < 0.95 * np.mean(diffusion[:3])
    discriminator = values(lines, "discriminator/loss/adversarial")
    assert np.mean(discriminator[-3:]) < np.mean(discriminator[:3])
    for name in ("adversarial", "diffusion"):
        assert min(values(lines, f"adapter/gradient_norm/{name}")) > 0
    assert set(values(lines, "adapter/weight/diffusion")) == {10.0}
    after = arrays(outcome.model, "adapters/resnet")
    assert all(np.any(after[path] != before[path]) for path in before)
    np.testing.assert_equal(arrays(outcome.model, "dit"), arrays(world, "dit"))


def test_frozen_models_are_bit_identical_in_memory(world, monkeypatch):
    """Steps receive the frozen arrays themselves: none may be donated or overwritten."""
    from flashmotion_jax.training import trainer

    seen = []
    models_of = trainer.Trainer.models

    def models(self):
        found = models_of(self)
        seen.append(
            {name: jax.device_get(found[name]) for name in ("slow_generator", "empty_text")}
        )
        return found

    monkeypatch.setattr(trainer.Trainer, "models", models)
    stage = SlowAdapterConfig(slow_generator=str(world), adapter=ADAPTER, optimizer=OPTIMIZER)
    config = TrainConfig(
        stage=stage,
        cache=str(world / "cache"),
        workdir=str(world / "still"),
        num_train_steps=3,
        batch_size=2,
        dtype="float32",
        remat="none",
        sample_every=0,
    )
    train(config, quiet=True)
    for leaves in zip(*(jax.tree.leaves(models) for models in (seen[0], seen[-1])), strict=True):
        np.testing.assert_array_equal(*leaves, strict=True)
