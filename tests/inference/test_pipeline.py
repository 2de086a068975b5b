from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from flashmotion_jax import Pipeline, SamplingConfig, load_models
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.trajectory import Canvas, Keyframe, TrackedObject, Trajectory, load_maps
from helpers import tiny

SIZE = (32, 64)
SAMPLING = SamplingConfig(height=32, width=64, num_frames=9, negative_prompt="red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("checkpoint"), SAMPLING)


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(folder, "resnet")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)


def trajectory(end=0.6):
    keyframes = (Keyframe(0, (0.1, 0.1, 0.4, 0.6)), Keyframe(8, (end, 0.1, end + 0.3, 0.6)))
    ball = TrackedObject(id=1, name="ball", keyframes=keyframes)
    return Trajectory(Canvas(80, 40), num_frames=9, fps=24, objects=(ball,))


def test_a_video_of_the_right_shape_whose_first_frame_is_the_image(pipe, image):
    video = pipe(image, "a red ball rolls", trajectory())
    assert video.dtype == np.uint8 and video.shape == (9, *SIZE, 3)
    alone = pipe(image, "a red ball rolls", trajectory(), num_frames=1)
    # The VAE is causal: frame 0 is the decoded image, whatever follows.
    assert np.abs(video[0].astype(int) - alone[0]).max() <= 1


def test_the_same_seed_gives_the_same_bits_another_does_not(pipe, image):
    first = pipe(image, "a dog runs", trajectory(), seed=3)
    np.testing.assert_array_equal(pipe(image, "a dog runs", trajectory(), seed=3), first)
    assert (pipe(image, "a dog runs", trajectory(), seed=4) != first).any()


@pytest.mark.parametrize("adapter", ["resnet", "controlnet"])
@pytest.mark.usefixtures("fused_as_for_users")
def test_the_trajectory_matters_and_scale_0_ignores_it(folder, image, adapter):
    pipe = Pipeline.from_pretrained(folder, adapter)
    left, right = (pipe(image, "a dog runs", trajectory(end)) for end in (0.1, 0.6))
    assert (left != right).any()
    off = pipe(image, "a dog runs", trajectory(), adapter_scale=0.0)
    plain = Pipeline.from_pretrained(folder, None)(image, "a dog runs")
    np.testing.assert_array_equal(off, plain)
    np.testing.assert_array_equal(pipe(image, "a dog runs"), plain)


def test_the_tiny_decoder_decodes_the_same_latents(pipe, folder, image):
    full = pipe(image, "a dog runs", trajectory())
    tiny_video = pipe(image, "a dog runs", trajectory(), decoder="tiny")
    assert tiny_video.shape == full.shape and (tiny_video != full).any()
    models = load_models(folder, "float32")
    assert models.tiny_vae.config == models.config.tiny_vae == tiny.TINY_VAE


def test_a_missing_tiny_decoder_is_named(folder, tmp_path, image):
    shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "tiny_vae")
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"convert import taew2_2\.safetensors MODEL"):
        pipe.request(image, "a dog", trajectory(), decoder="tiny")
    with pytest.raises(ValueError, match="decoder='small'; expected one of full, tiny"):
        pipe.request(image, "a dog", trajectory(), decoder="small")


def test_a_video_does_not_depend_on_its_batch(pipe, image):
    prompts = ["a red ball rolls", "a dog runs"]
    batch = pipe([image, image[::-1]], prompts, [trajectory(), trajectory(0.2)], seed=5)
    assert batch.shape == (2, 9, *SIZE, 3)
    alone = pipe(image[::-1], prompts[1], trajectory(0.2), seed=6)
    assert np.abs(batch[1].astype(int) - alone).max() <= 1


@pytest.mark.parametrize("adapter", ["resnet", "controlnet"])
def test_devices_share_a_video(folder, image, adapter):
    """Latents of 4 columns, 2 tokens: 8 devices have tokens that are padding, and all columns."""
    one, *several = (
        Pipeline.from_pretrained(folder, adapter, devices=devices) for devices in (1, 2, 8)
    )
    expected = one(image, "a dog runs", trajectory()).astype(int)
    for pipe in several:
        video = pipe(image, "a dog runs", trajectory())
        assert np.abs(video - expected).max() <= 1


def test_more_devices_than_available_raise(folder):
    with pytest.raises(ValueError, match="needs 9 devices; found 8"):
        Pipeline.from_pretrained(folder, "resnet", devices=9)


@pytest.mark.parametrize("sampler", ["few_step", "unipc", "euler"])
@pytest.mark.parametrize("has_image", [True, False])
def test_every_sampler_with_and_without_an_image(folder, image, sampler, has_image):
    pipe = Pipeline.from_pretrained(folder, None)
    pipe.sampling = dataclasses.replace(SAMPLING, sampler=sampler)
    video = pipe(image if has_image else None, "a dog", num_inference_steps=2)
    assert video.shape == (9, *SIZE, 3)


def test_guidance_steers(folder):
    pipe = Pipeline.from_pretrained(folder, None)
    pipe.sampling = dataclasses.replace(SAMPLING, sampler="euler")
    videos = [pipe(None, "a dog", num_inference_steps=2, guidance_scale=g) for g in (1, 3, 5)]
    assert (videos[0] != videos[1]).any() and (videos[1] != videos[2]).any()
    pipe.sampling = dataclasses.replace(pipe.sampling, negative_prompt="a red ball")
    assert (pipe(None, "a dog", num_inference_steps=2, guidance_scale=5) != videos[2]).any()


def test_other_sizes_portrait_and_lengths(pipe, image):
    tall = np.swapaxes(image, 0, 1)
    assert pipe(tall, "a dog", trajectory()).shape == (9, 64, 32, 3)
    assert pipe(image, "a dog", trajectory(), height=64, width=32, num_frames=5).shape == (
        5,
        64,
        32,
        3,
    )
    maps = load_maps(trajectory(), num_frames=5, height=64, width=96)
    assert pipe(
        image, "a dog", maps, height=64, width=96, num_frames=5, num_inference_steps=1
    ).shape == (5, 64, 96, 3)


def test_progress_and_times_of_every_stage(pipe, image):
    seen = []
    pipe(image, "a dog", trajectory(), progress=lambda *step: seen.append(step))
    assert [stage.stage for stage in pipe.stage_times] == ["text", "encode", "denoise", "decode"]
    assert {(stage, total) for stage, _, total in seen} == {
        ("text", 1),
        ("encode", 4),
        ("denoise", 4),
        ("decode", 3),
    }
    for stage, _, total in seen:
        assert {done for name, done, _ in seen if name == stage} == set(range(total + 1))
    assert all(stage.load >= 0 and stage.run >= 0 for stage in pipe.stage_times)


def test_a_second_video_with_other_numbers_compiles_nothing(folder, image, monkeypatch):
    pipe = Pipeline.from_pretrained(folder, "resnet")
    pipe(image, "a dog", trajectory())
    traced = []
    forward = DiT.__call__
    monkeypatch.setattr(DiT, "__call__", lambda *args: traced.append(1) or forward(*args))
    pipe(image[::-1], "a red ball", trajectory(0.3), seed=7, adapter_scale=0.5)
    assert not traced


WARM_START = """
import sys
from flashmotion_jax.cli.options import keep_compiled_programs
keep_compiled_programs()
from collections import Counter
import jax
from flashmotion_jax import Pipeline
events = Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name]))
Pipeline.from_pretrained(sys.argv[1], None)(None, "a dog", num_frames=5, num_inference_steps=2)
cache = "/jax/compilation_cache/cache_"
print(events[cache + "hits"], events[cache + "misses"])
"""


def test_a_second_process_compiles_nothing(folder, tmp_path):
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def hits_and_misses():
        command = [sys.executable, "-c", WARM_START, str(folder)]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return tuple(map(int, done.stdout.split()))

    hits, misses = hits_and_misses()
    kept = " ".join(path.name for path in (tmp_path / "flashmotion" / "compiled").iterdir())
    assert misses > 0 and all(
        name in kept for name in ("start_denoising", "denoise_step", "decode_chunk")
    )
    assert hits_and_misses() == (hits + misses, 0)


def test_what_progress_raises_cancels(pipe, image):
    def cancel(stage, done, total):
        if (stage, done) == ("denoise", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(image, "a dog", trajectory(), progress=cancel)
    assert [stage.stage for stage in pipe.stage_times] == ["text", "encode"]


def test_models_are_let_go_stage_by_stage(folder, image, monkeypatch):
    """At most one stage's models exist at a time: peak memory is the largest, not the sum."""
    pipe = Pipeline.from_pretrained(folder, "resnet", keep_loaded=False)
    alive = {}

    def watched(name, load):
        def loader():
            gc.collect()
            others = [key for key, reference in alive.items() if reference() is not None]
            component = load()
            alive[name] = weakref.ref(component)
            assert set(others) <= ({"dit"} if name == "adapter" else set()), (name, others)
            return component

        return loader

    pipe._models.loaders = {
        name: watched(name, load) for name, load in pipe._models.loaders.items()
    }
    pipe(image, "a dog", trajectory())
    assert set(alive) == {"text_encoder", "vae", "dit", "adapter"}


def test_a_pipeline_that_is_dropped_takes_its_models_along(folder, image):
    pipe = Pipeline.from_pretrained(folder, None)
    pipe(image, "a dog")
    dit = weakref.ref(pipe._models.loaded["dit"])
    del pipe
    gc.collect()
    assert dit() is None


def test_prompts_are_cached_in_memory_and_on_disk(folder, image, tmp_path):
    def counting(pipe, loads):
        load = pipe._models.loaders["text_encoder"]
        pipe._models.loaders = {
            **pipe._models.loaders,
            "text_encoder": lambda: loads.append(1) or load(),
        }
        return pipe

    loads = []
    pipe = counting(Pipeline.from_pretrained(folder, None, prompt_cache=tmp_path / "cache"), loads)
    first = pipe(image, "a dog")
    np.testing.assert_array_equal(pipe(image, "a dog"), first)
    assert len(loads) == 1 and len(list((tmp_path / "cache").iterdir())) == 1
    again = counting(Pipeline.from_pretrained(folder, None, prompt_cache=tmp_path / "cache"), loads)
    np.testing.assert_array_equal(again(image, "a dog"), first)
    assert len(loads) == 1
    again(image, "a red ball")
    assert len(loads) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 10}, r"num_frames=10; expected 4 n \+ 1, for instance 9"),
        (
            {"height": 33, "width": 64},
            r"height=33, width=64; expected .* multiple of 32, for instance height=32, width=64",
        ),
        ({"num_inference_steps": 9}, "the few-step sampler takes 1 to 8"),
        ({"guidance_scale": 2.0}, "guidance_scale=2.0 with the few_step sampler"),
        ({"prompt": 3}, "prompt=3; expected a string"),
        ({"prompt": ["a", "b"], "image": [None]}, "1 values of image for 2 prompts"),
        ({"prompt": ["a", "b"], "trajectory": ["m.json", None]}, "every video of a batch needs a"),
        ({"trajectory": None, "map_kind": "box"}, "map_kind='box' without a trajectory"),
        ({"image": "."}, "no image at ., which is a folder"),
        ({"image": "missing.png"}, "no image at missing.png"),
        ({"image": np.zeros((4, 4))}, r"image is float64 \(4, 4\)"),
        ({"height": 0, "width": 64}, "height=0, width=64"),
    ],
)
def test_wrong_arguments_raise_before_anything_loads(folder, image, change, message):
    pipe = Pipeline.from_pretrained(folder, "resnet")
    pipe._models.loaders = dict.fromkeys(pipe._models.loaders, pytest.fail)
    arguments = {"image": image, "prompt": "a dog", "trajectory": trajectory()} | change
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_an_adapter_of_ones_own_as_in_the_docs(folder, image):
    guide = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    scope = {}
    exec(guide.split("```python\n")[1].split("```")[0], scope)
    adapter = scope["BiasAdapter"](None, tiny.DIT)
    plain = Pipeline.from_pretrained(folder, None)(image, "a dog")
    pipe = Pipeline.from_pretrained(folder, adapter)
    np.testing.assert_array_equal(pipe(image, "a dog", trajectory()), plain)
    pipe = Pipeline.from_pretrained(folder, tiny.perturbed(adapter))
    assert (pipe(image, "a dog", trajectory()) != plain).any()


def test_a_trajectory_without_an_adapter_raises(folder, image):
    with pytest.raises(ValueError, match="a trajectory without an adapter"):
        Pipeline.from_pretrained(folder, None)(image, "a dog", trajectory())


def test_no_path_is_the_model_that_comes_with_the_package(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path / package)
    message = r"does not include the small model .*assets/tiny is missing.* --model"
    with pytest.raises(ValueError, match=message):
        Pipeline.from_pretrained(None)
    (tmp_path / "flashmotion_jax" / "assets").mkdir(parents=True)
    (tmp_path / "flashmotion_jax" / "assets" / "tiny").symlink_to(folder)
    assert (
        Pipeline.from_pretrained(None).sampling == Pipeline.from_pretrained().sampling == SAMPLING
    )


def test_a_folder_without_the_adapter_raises(folder, tmp_path):
    with pytest.raises(ValueError, match="adapters/sparsectrl"):
        Pipeline.from_pretrained(folder, "sparsectrl")
    with pytest.raises(ValueError, match="does not exist"):
        Pipeline.from_pretrained(tmp_path / "nothing")
