"""The files of `configs/sprites/`: what they say, that they fit together, and the ablations."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from pathlib import Path

import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.init import NewModelConfig
from flashmotion_jax.config import (
    CacheConfig,
    TrainConfig,
    differences,
    load_config,
    to_dict,
    with_overrides,
)

FOLDER = Path(__file__).parents[2] / "configs" / "sprites"
FILES = sorted(file for file in FOLDER.glob("*.py") if file.stem not in ("__init__", "common"))
STAGES = ["slow_generator", "stage1_mask", "stage1_box", "stage2", "stage3"]


def train_config(name):
    return load_config(f"{FOLDER}/{name}", TrainConfig)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_its_command_hardware_and_result_in_under_80_lines(file):
    text = file.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) < 80
    assert f"--config configs/sprites/{file.name}" in docstring
    assert "Hardware:" in docstring
    assert "Expect" in docstring


def test_sizes_fit_together():
    family = load_config(f"{FOLDER}/model.py", NewModelConfig)
    cache = load_config(f"{FOLDER}/cache.py", CacheConfig)
    autoencoder = train_config("autoencoder.py").stage
    sampling = family.sampling
    sizes = (sampling.num_frames, sampling.height, sampling.width)
    assert sizes == (cache.num_frames, cache.height, cache.width)
    assert sizes == (autoencoder.num_frames, autoencoder.height, autoencoder.width)
    assert autoencoder.data == "sprites"
    taps = train_config("stage3.py").stage.discriminator.block_indices
    assert max(taps) == family.dit.num_layers - 1


def test_before_the_stages_each_run_starts_from_the_one_before():
    names = ("autoencoder_images.py", "autoencoder.py", "decoder.py")
    runs = [train_config(name) for name in names]
    for before, after in itertools.pairwise(runs):
        assert after.stage.autoencoder == f"{before.workdir}/model"
    assert train_config("slow_generator.py").stage.slow_generator == f"{runs[-1].workdir}/model"


def test_the_tiny_decoder_is_of_the_latents_of_the_autoencoder_and_small():
    run = train_config("tiny_decoder.py")
    assert run.stage.autoencoder == f"{train_config('decoder.py').workdir}/model"
    family = load_config(f"{FOLDER}/model.py", NewModelConfig)
    whole = dataclasses.replace(family, tiny_vae=run.stage.tiny_vae)
    abstract = components.abstract_module("tiny_vae", whole.tiny_vae, "bfloat16")
    variables = components.flat_parameters(abstract).values()
    assert 2 * sum(variable.get_value().size for variable in variables) < 1.4e6  # bytes


@pytest.mark.parametrize("adapter", ["resnet", "controlnet"])
def test_each_stage_starts_from_the_one_before(adapter):
    outputs = {}
    for name in STAGES:
        suffix = f":{adapter}" if name not in ("slow_generator", "stage2") else ""
        outputs[name] = train_config(f"{name}.py{suffix}")
    before = {name: f"{config.workdir}/model" for name, config in outputs.items()}
    stages = {name: config.stage for name, config in outputs.items()}
    assert stages["stage1_box"].start_from == before["stage1_mask"]
    assert stages["stage3"].slow_adapter == before["stage1_box"]
    assert stages["stage3"].fast_generator == before["stage2"]
    for name in ("stage1_mask", "stage1_box", "stage2", "stage3"):
        assert stages[name].slow_generator == before["slow_generator"]
    cache = load_config(f"{FOLDER}/cache.py", CacheConfig)
    assert cache.model == f"{train_config('decoder.py').workdir}/model"


@pytest.mark.parametrize(
    ("variant", "changed"),
    [
        ("diffusion_only", {"stage.adversarial"}),
        ("adversarial_only", {"stage.diffusion_scale.slope"}),
        ("fixed_scale", {"stage.diffusion_scale.slope", "stage.diffusion_scale.offset"}),
        ("mean_scale", {"stage.diffusion_scale.slope", "stage.diffusion_scale.offset"}),
        ("paper_scale", {"stage.diffusion_scale.slope"}),
        ("vc", {"stage.discriminator.semantic", "stage.discriminator.trajectory"}),
        ("ss_vc", {"stage.discriminator.trajectory"}),
        ("tc_vc", {"stage.discriminator.semantic"}),
    ],
)
def test_an_ablation_changes_one_thing(variant, changed):
    whole, ablation = train_config("stage3.py"), train_config(f"stage3.py:resnet-{variant}")
    assert {line.split(":")[0] for line in differences(to_dict(whole), ablation)} == changed
    assert ablation.workdir == f"{whole.workdir}-{variant}"


def test_dynamic_and_fixed_scale_have_one_mean():
    whole, fixed = (train_config(f"stage3.py{end}") for end in ("", ":resnet-mean_scale"))
    scale, steps = whole.stage.diffusion_scale, whole.num_train_steps
    mean = sum(scale.slope * step + scale.offset for step in range(steps)) / steps
    assert fixed.stage.diffusion_scale.offset == pytest.approx(mean, rel=0.01)
    assert dataclasses.replace(fixed.stage, diffusion_scale=scale) == whole.stage


@pytest.mark.parametrize("variant", ["vae", "resnet-nothing"])
def test_an_unknown_variant_is_refused_with_the_known_ones(variant):
    with pytest.raises(ValueError, match=r"expected resnet or controlnet or sparsectrl, .*tc_vc"):
        train_config(f"stage3.py:{variant}")


@pytest.mark.parametrize(
    "change", ["stage.window_frames=18", "stage.windows_per_video=0", "stage.map_fraction=2"]
)
def test_windows_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=change.split("=")[0].removeprefix("stage.")):
        with_overrides(train_config("autoencoder.py"), [change])


def test_points_and_sparsectrl_continue_from_what_says_more():
    points = train_config("stage1_points.py:controlnet")
    assert points.stage.start_from == f"{train_config('stage1_box.py:controlnet').workdir}/model"
    masks, boxes = (train_config(f"stage1_{kind}.py:sparsectrl") for kind in ("mask", "box"))
    assert boxes.stage.start_from == f"{masks.workdir}/model"
    assert train_config("stage3.py:sparsectrl").stage.slow_adapter == f"{boxes.workdir}/model"
    for maps, run in (("points", points), ("frames", boxes)):
        cache = load_config(f"{FOLDER}/cache.py:{maps}", CacheConfig)
        assert run.cache == cache.output and run.map_kind in cache.map_kinds
        assert cache.point_sigma * 64 == 4
