"""The sparse adapter in training, sampling, PyTorch files and plans."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from flashmotion_jax import Pipeline
from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import ADAPTERS, OptimizerConfig
from flashmotion_jax.converters.exporting import export_adapter
from flashmotion_jax.converters.importing import convert_file
from flashmotion_jax.perf import plan, topology
from flashmotion_jax.runtime.devices import CompileTarget
from flashmotion_jax.trajectory import Canvas, Keyframe, TrackedObject, Trajectory
from helpers import run_small, tiny

CONFIG = ADAPTERS["sparsectrl"].config()
KIND = "adapters/sparsectrl"
KEYS = (Keyframe(0, (0.1, 0.1, 0.4, 0.6)), Keyframe(4, (0.5, 0.3, 0.9, 0.8)))
PATH = Trajectory(Canvas(96, 64), 9, 8.0, (TrackedObject(1, KEYS),))
IMAGE = np.zeros((64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    run_small.prepare(folder, maps=("mask", "box", "box_frames"))
    return folder


def config(prepared, output, *overrides):
    run = run_small.config(prepared, output, "slow_adapter", *overrides)
    stage = dataclasses.replace(
        run.stage, adapter=CONFIG, optimizer=OptimizerConfig(learning_rate=1e-2)
    )
    return dataclasses.replace(run, stage=stage)


@pytest.fixture(scope="module")
def model(prepared):
    """The checkpoint that three steps of stage 1 write, with sample videos on the way."""
    overrides = ("num_train_steps=3", "sample_every=2")
    return run_small.train(config(prepared, prepared / "run", *overrides)).model


def parameters(model):
    module = components.load_component(model, KIND, "float32")
    return {
        name: np.asarray(value.get_value())
        for name, value in components.flat_parameters(module).items()
    }


def test_stage_1_trains_projections_and_then_the_embedding_of_the_condition(model):
    assert components.read_component(model, KIND).config == CONFIG
    trained = parameters(model)
    assert np.abs(trained["projections.kernel"]).max() > 0  # it starts at zero
    assert np.abs(trained["patch_embedding.kernel"]).max() > 0  # likewise, a step later
    assert trained["patch_embedding.kernel"].shape == (4 * 49, tiny.DIT.dim)


def test_stage_3_trains_it_with_the_law_of_its_checkpoint(prepared, model, tmp_path):
    run = run_small.config(prepared, tmp_path, "fast_adapter", "num_train_steps=2")
    stage = dataclasses.replace(run.stage, adapter="sparsectrl", slow_adapter=str(model))
    result = run_small.train(dataclasses.replace(run, stage=stage))
    before, after = parameters(model), parameters(result.model)
    assert any((after[name] != before[name]).any() for name in before)


def test_stage_1_without_the_maps_of_frames_says_how_to_write_them(prepared, tmp_path):
    run = config(prepared, tmp_path, "map_kind=mask", "num_train_steps=1")
    with pytest.raises(ValueError, match="has mask, box, box_frames, and not mask_frames"):
        run_small.train(run)


def test_videos_follow_what_is_known(model):
    """Its keyframes by default; what a latent frame shows later than its keyframe is not seen."""
    pipe = Pipeline.from_pretrained(model, "sparsectrl")

    def video(motion=PATH, **options):
        return pipe(IMAGE, "", motion, guidance_scale=1, **options)

    default = video()
    np.testing.assert_array_equal(default, video(known_frames=(0, 4)))
    assert (default != video(known_frames="all")).any()
    moved = dataclasses.replace(KEYS[1], frame=4), Keyframe(8, (0.0, 0.0, 0.2, 0.2))
    longer = dataclasses.replace(PATH, objects=(TrackedObject(1, (KEYS[0], *moved)),))
    np.testing.assert_array_equal(default, video(longer, known_frames=(0, 4)))
    assert (default != video(longer)).any()
    request = pipe.request(IMAGE, "", PATH)
    assert request.known.tolist() == [[True, True, False]]
    assert request.maps[0].any(axis=(1, 2, 3)).tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("adapter", "options", "message"),
    [
        ("sparsectrl", {"known_frames": (0, 9)}, "known_frames: frame 9; .* from 0 to 8"),
        (
            "none",
            {"known_frames": (0,)},
            "known_frames=.* without a trajectory, or with an adapter",
        ),
    ],
)
def test_bad_requests_are_one_clear_line(model, adapter, options, message):
    pipe = Pipeline.from_pretrained(model, adapter)
    with pytest.raises(ValueError, match=message):
        pipe.request(IMAGE, "", PATH if adapter != "none" else None, **options)


def test_it_goes_to_pytorch_and_back(model, prepared, tmp_path):
    file = tmp_path / "sparsectrl.safetensors"
    export_adapter(model, file, "sparsectrl", dtype=None)
    destination = tmp_path / "imported"
    components.write_sampling(destination, components.read_sampling(model))
    (destination / "dit").symlink_to(prepared / "base" / "dit")
    convert_file(str(file), destination, dtype="float32", overwrite=False)
    assert components.read_component(destination, KIND).config == CONFIG
    before, after = parameters(model), parameters(destination)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_its_training_and_sampling_can_be_planned(prepared, model, tmp_path):
    target = CompileTarget(("cpu",), 1e12, "cpu", 2**30, 1e11, 1e10, 1e10, 4, "made up")
    devices = topology.Topology("test:8", target, jax.devices())
    run = config(prepared, tmp_path, "mesh.data=2", "mesh.fsdp=4", "batch_size=8")
    planned = plan.plan_training(run, devices, None, lambda text: None)
    assert not planned.problems and planned.compiled[0].memory.arguments > 0
