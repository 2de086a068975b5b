from __future__ import annotations

import dataclasses
import json
import math

import pytest

from flashmotion_jax import config
from flashmotion_jax.config import (
    DiTConfig,
    SamplingConfig,
    VAEConfig,
    adapters,
    from_dict,
    to_dict,
)

CONFIGS = [
    config.DiTConfig,
    config.VAEConfig,
    config.TextEncoderConfig,
    adapters.ResNetAdapterConfig,
    adapters.ControlNetConfig,
    config.SamplingConfig,
]


@pytest.mark.parametrize("cls", CONFIGS)
def test_json_round_trip(cls):
    made = cls()
    assert from_dict(cls, json.loads(json.dumps(to_dict(made)))) == made


def test_unknown_key_suggests_the_nearest_one():
    with pytest.raises(ValueError, match=r"model.json: unknown key 'num_head'.*'num_heads'"):
        from_dict(DiTConfig, {"num_head": 3}, "model.json")


def test_invalid_values_raise():
    with pytest.raises(ValueError, match="dim=100 must be a multiple of 2 \\* num_heads=48"):
        DiTConfig(dim=100)
    with pytest.raises(ValueError, match="latents_mean has 48 values; expected latent_channels=16"):
        VAEConfig(latent_channels=16)
    with pytest.raises(ValueError, match="temporal_downsample"):
        VAEConfig(multipliers=(1, 2))
    with pytest.raises(ValueError, match="text_len=0; expected at least 1"):
        DiTConfig(text_len=0)
    with pytest.raises(ValueError, match=r"patch_size=\(2, 0\); expected at least 1"):
        DiTConfig(patch_size=(2, 0))
    with pytest.raises(ValueError, match="sampler='ddim' is unknown"):
        SamplingConfig(sampler="ddim")
    with pytest.raises(
        ValueError, match="map_kind='line' is unknown; use one of box, filled_box, mask"
    ):
        SamplingConfig(map_kind="line")
    with pytest.raises(ValueError, match=r"guidance_scale=0\.5; expected a number of at least 1"):
        SamplingConfig(guidance_scale=0.5)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"guidance_scale={value}; expected"):
            SamplingConfig(guidance_scale=value)
    for value in (math.nan, math.inf, 0, -1):
        with pytest.raises(ValueError, match=f"shift={value}; expected a positive number"):
            SamplingConfig(shift=value)


@pytest.mark.parametrize("multipliers", [(1, 3, 4), (4, 1, 16), (3, 4, 4)])
def test_levels_without_a_shortcut_raise(multipliers):
    with pytest.raises(ValueError, match="the channels of a level"):
        VAEConfig(multipliers=multipliers, temporal_downsample=(True, True))


def test_space_is_halved_at_every_step_unless_steps_are_given():
    sizes = {"multipliers": (1, 2, 2), "temporal_downsample": (True, True), "patch_size": 4}
    assert VAEConfig(**sizes).spatial_factor == 16
    assert VAEConfig(**sizes, spatial_downsample=(True, False)).spatial_factor == 8
    with pytest.raises(ValueError, match=r"spatial_downsample=.* expected one entry fewer"):
        VAEConfig(**sizes, spatial_downsample=(True,))


def test_compression_of_the_published_vae():
    assert (VAEConfig().spatial_factor, VAEConfig().temporal_factor) == (16, 4)


def test_few_step_sampler_spaces_steps_evenly():
    sampling = SamplingConfig()
    assert sampling.with_num_inference_steps(4).denoising_steps == (1000, 750, 500, 250)
    assert sampling.with_num_inference_steps(2).denoising_steps == (1000, 500)
    assert sampling.with_num_inference_steps(3).num_inference_steps == 3
    for steps in (0, 9):
        with pytest.raises(ValueError, match=f"num_inference_steps={steps}; .* takes 1 to 8"):
            sampling.with_num_inference_steps(steps)


def test_multi_step_sampler_takes_any_number_of_steps():
    sampling = SamplingConfig(sampler="unipc")
    assert sampling.with_num_inference_steps(20).num_inference_steps == 20
    with pytest.raises(ValueError, match="num_inference_steps=0"):
        sampling.with_num_inference_steps(0)


def test_only_multi_step_samplers_use_guidance():
    assert not SamplingConfig().is_guided
    assert SamplingConfig(sampler="euler").is_guided
    assert not SamplingConfig(sampler="euler", guidance_scale=1).is_guided


@pytest.mark.parametrize("cls", CONFIGS)
def test_configurations_are_frozen_and_hashable(cls):
    hash(cls())
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cls(), dataclasses.fields(cls)[0].name, None)


def test_latent_shape_of_a_full_size_video():
    assert VAEConfig().latent_shape(121, 704, 1280) == (31, 44, 80, 48)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_latent_statistics_are_finite_numbers(value):
    with pytest.raises(ValueError, match=f"latents_std has {value}; expected"):
        VAEConfig(latents_std=(value,) * 48)
    if not math.isfinite(value):
        with pytest.raises(ValueError, match=f"latents_mean has {value}; expected"):
            VAEConfig(latents_mean=(value,) * 48)
