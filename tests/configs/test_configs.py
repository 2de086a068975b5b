"""Every file of `configs/`, at full size without an array: its numbers, and that it traces."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from flashmotion_jax.config import CacheConfig, TrainConfig, load_config, with_overrides
from flashmotion_jax.runtime.sharding import make_mesh
from flashmotion_jax.training.abstract import abstract_step_args
from flashmotion_jax.training.inputs import open_inputs
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.train_state import to_arrays
from flashmotion_jax.training.train_step import make_train_step
from helpers.full_size_world import load_run, write_world

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(file for file in FOLDER.glob("*.py") if file.stem not in ("__init__", "common"))
RUNS = [file.name for file in FILES if file.stem != "cache_magicdata"]
#: Those of stages 1 and 3 take the kind of adapter.
ADAPTED = ["stage1_mask.py", "stage1_box.py", "stage1_points.py", "stage3.py"]
#: One of each kind of update; the others differ in values alone.
TRACED = [
    "stage1_box.py:controlnet",
    "stage1_box.py:sparsectrl",
    "stage2.py",
    "stage3.py:resnet",
    "stage3.py:sparsectrl",
    "stage3_dmd.py:controlnet",
]
MILLION = 10**6
#: Parameters of the adapters that are not the default.
ADAPTERS = {"controlnet": 5_282_988_992, "sparsectrl": 5_282_411_456}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"), latent_frames=3)


def load(name, world, devices=8):
    """A configuration with our world's paths, a video on each of the tests' devices."""
    return load_run(f"{FOLDER}/{name}", world, f"mesh.fsdp={devices}", f"batch_size={devices}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_its_command_hardware_and_result_in_under_80_lines(file):
    text = file.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) < 80
    assert f"--config configs/{file.name}" in docstring
    if file.stem != "cache_magicdata":
        assert "Hardware:" in docstring
        assert "Expect" in docstring


def test_runs_read_the_cache_that_has_their_maps():
    for name, maps in (
        ("stage1_mask.py", ""),
        ("stage1_points.py:controlnet", "points"),
        ("stage1_mask.py:sparsectrl", "frames"),
        ("stage1_box.py:sparsectrl", "frames"),
        ("stage3.py:sparsectrl", "frames"),
    ):
        run = load_config(f"{FOLDER}/{name}", TrainConfig)
        cache = load_config(f"{FOLDER}/cache_magicdata.py" + f":{maps}" * bool(maps), CacheConfig)
        assert run.cache == cache.output
        assert run.map_kind in cache.map_kinds and cache.single_frames == (maps == "frames")
    with pytest.raises(ValueError, match="maps 'boxes'; expected points or frames, or no colon"):
        load_config(f"{FOLDER}/cache_magicdata.py:boxes", CacheConfig)


def test_the_cache_of_the_paper():
    config = load_config(f"{FOLDER}/cache_magicdata.py", CacheConfig)
    assert (config.num_frames, config.height, config.width) == (121, 704, 1280)
    assert config.resize == "stretch"


@pytest.mark.parametrize(
    ("name", "steps", "batch", "rates", "every"),
    [
        ("stage1_mask.py:resnet", 4600, 16, {"adapter": 2e-6}, {"adapter": 1}),
        ("stage1_mask.py:controlnet", 4600, 16, {"adapter": 2e-6}, {"adapter": 1}),
        ("stage1_box.py:resnet", 5400, 16, {"adapter": 2e-6}, {"adapter": 1}),
        ("stage1_box.py:controlnet", 5400, 16, {"adapter": 2e-6}, {"adapter": 1}),
        (
            *("stage2.py", 5500, 16, {"generator": 5e-7, "fake_score": 1e-7}),
            {"generator": 5, "fake_score": 1},
        ),
        (
            *("stage3.py:resnet", 1000, 4, {"adapter": 2e-6, "discriminator": 2e-6}),
            {"adapter": 5, "discriminator": 1},
        ),
        (
            *("stage3.py:controlnet", 1000, 4, {"adapter": 2e-6, "discriminator": 2e-6}),
            {"adapter": 5, "discriminator": 1},
        ),
    ],
)
def test_the_schedule_of_the_paper(world, name, steps, batch, rates, every):
    config = load_config(f"{FOLDER}/{name}", TrainConfig)
    assert (config.num_train_steps, config.batch_size) == (steps, batch)
    assert math.prod((config.mesh.data, config.mesh.fsdp)) == batch  # a video a device
    stage = build_stage(load(name, world))
    assert {name: p.optimizer.learning_rate for name, p in stage.trained.items()} == rates
    assert {update.model: update.every for update in stage.updates} == every


def test_stage_2_has_the_published_hyper_parameters(world):
    stage = load("stage2.py", world).stage
    for optimizer in (stage.optimizer, stage.fake_score_optimizer):
        assert (optimizer.beta1, optimizer.beta2) == (0.0, 0.999)
        assert (optimizer.weight_decay, optimizer.clip_norm) == (0.01, 10.0)
    assert (stage.optimizer.ema_decay, stage.optimizer.ema_start) == (0.99, 200)
    assert (stage.matching.real_guidance, stage.matching.timesteps.shift) == (6.0, 5.0)
    assert (stage.matching.timesteps.low, stage.matching.timesteps.high) == (20.0, 980.0)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("diffusion_only", {"adversarial": False}),
        ("adversarial_only", {"diffusion_scale.slope": 0.0}),
        ("fixed_scale", {"diffusion_scale.slope": 0.0, "diffusion_scale.offset": 1.0}),
        ("vc", {"discriminator.semantic": False, "discriminator.trajectory": False}),
        ("ss_vc", {"discriminator.trajectory": False}),
        ("tc_vc", {"discriminator.semantic": False}),
    ],
)
@pytest.mark.parametrize("adapter", ["resnet", "controlnet"])
def test_an_ablation_changes_one_thing(name, changes, adapter):
    base = load_config(f"{FOLDER}/stage3.py:{adapter}", TrainConfig)
    ablation = load_config(f"{FOLDER}/stage3_{name}.py:{adapter}", TrainConfig)
    assignments = [f"stage.{key}={value}" for key, value in changes.items()]
    workdir = f"workdir=runs/stage3_{name}_{adapter}"
    assert ablation == with_overrides(base, [*assignments, workdir])


@pytest.mark.parametrize(
    "name", [*RUNS, *(f"{name}:{kind}" for name in ADAPTED for kind in ADAPTERS)]
)
def test_trained_models_have_the_sizes_of_the_paper(world, name):
    stage = build_stage(load(name, world))
    sizes = {
        name: sum(math.prod(array.shape) for array in to_arrays(init.abstract).values())
        for name, init in stage.trained.items()
    }
    expected = {
        "generator": 4_999_787_712,
        "adapter": next((size for kind, size in ADAPTERS.items() if kind in name), 20_779_520),
    }
    for model in sizes.keys() & expected.keys():
        assert sizes[model] == pytest.approx(expected[model], rel=1e-3)


def layout(array):
    """Shape, dtype and split dimensions of an abstract array."""
    spec = array.sharding.spec if array.sharding else ()
    return array.shape, array.dtype, {i: axis for i, axis in enumerate(spec) if axis}


@pytest.mark.parametrize("devices", [8, 1])
@pytest.mark.parametrize("name", TRACED)
def test_steps_trace_at_full_size_and_keep_what_they_are_given(world, name, devices):
    """Of one video on one device, dimensions of size one must not be taken for each other."""
    config = load(name, world, devices)
    with jax.set_mesh(make_mesh(fsdp=devices)):
        stage = build_stage(config)
        arguments = abstract_step_args(config, stage, open_inputs(config, stage))
        for update in stage.updates:
            step = make_train_step(update, stage.trained[update.model].optimizer).function
            given = arguments[update.model]
            state, metrics = jax.eval_shape(step, *given)
            assert list(map(layout, jax.tree.leaves(state))) == list(
                map(layout, jax.tree.leaves(given[0]))
            )
            assert all(metric.shape == () for metric in metrics.values())
            masters = {array.dtype for array in to_arrays(state.params).values()}
            assert masters == {np.dtype(np.float32)}
