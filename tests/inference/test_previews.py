"""Previews while denoising: which there are, what they show, and how they are written."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest

from flashmotion_jax import Pipeline, SamplingConfig
from flashmotion_jax.cli.main import main
from flashmotion_jax.inference.previews import MAX_PREVIEWS, PreviewWriter, has_preview, to_screen
from flashmotion_jax.media.videos import read_video
from helpers import tiny

SAMPLING = SamplingConfig(height=32, width=32, num_frames=5, denoising_steps=(1000, 500))
VIDEOS = np.random.default_rng(0).integers(0, 256, (1, 5, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("checkpoint"), SAMPLING)


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(folder, None)


def test_previews_follow_the_steps_and_end_with_what_the_tiny_decoder_makes(pipe):
    seen = {}
    video = pipe(VIDEOS[0, 0], "a dog", on_preview=seen.__setitem__)
    assert list(seen) == [1, 2]
    assert all(one.dtype == np.uint8 and one.shape == (1, 5, 32, 32, 3) for one in seen.values())
    np.testing.assert_array_equal(seen[2][0], pipe(VIDEOS[0, 0], "a dog", decoder="tiny"))
    assert (seen[1] != seen[2]).any()
    np.testing.assert_array_equal(pipe(VIDEOS[0, 0], "a dog"), video)


def test_an_exception_of_the_callback_cancels(pipe):
    def stop(step, videos):
        raise KeyboardInterrupt(step)

    with pytest.raises(KeyboardInterrupt, match="1"):
        pipe(None, "a dog", on_preview=stop)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 10, 11, 30, 50, 1000])
def test_there_are_few_evenly_spaced_previews(num_steps):
    steps = [step for step in range(1, num_steps + 1) if has_preview(step, num_steps)]
    assert len(steps) == min(num_steps, MAX_PREVIEWS) and steps[-1] == num_steps
    gaps = np.diff([0, *steps])
    assert gaps.max() - gaps.min() <= 1


@pytest.fixture
def without(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "tiny_vae")
    return tmp_path / "model"


def test_a_model_without_a_tiny_vae_has_no_previews(without):
    pipe = Pipeline.from_pretrained(without, None)
    message = r"previews while denoising: the model has no tiny VAE.*taew2_2\.safetensors"
    with pytest.raises(ValueError, match=message):
        pipe(None, "a dog", on_preview=print)
    assert not pipe.stage_times


def test_the_command_says_so_in_one_line(without, tmp_path, capsys):
    live, out = (str(tmp_path / name) for name in ("live.mp4", "video.mp4"))
    assert main(["sample", "--model", str(without), "--out", out, "--live-preview", live]) == 2
    error = capsys.readouterr().err.strip()
    assert "no tiny VAE" in error and "\n" not in error
    assert list(tmp_path.glob("*.mp4")) == []


def test_the_command_writes_previews(folder, tmp_path, capsys):
    live, out = tmp_path / "live.mp4", tmp_path / "video.npy"
    arguments = ["sample", "--model", str(folder), "--prompt", "a dog", "--out", str(out)]
    assert main([*arguments, "--live-preview", str(live)]) == 0
    assert f"wrote {out} and {live}: 5 frames" in capsys.readouterr().out
    assert read_video(live)[0].shape == (5, 256, 256, 3)


def test_a_preview_is_left_out_while_the_one_before_is_written(tmp_path):
    may_write, written = threading.Event(), []

    def arrange(video):
        assert may_write.wait(60)
        return video

    with PreviewWriter(
        tmp_path / "live.npy", 8, arrange=arrange, on_written=written.append
    ) as writer:
        writer(1, VIDEOS)
        writer(2, 255 - VIDEOS)
        may_write.set()
    assert written == [1]
    np.testing.assert_array_equal(read_video(tmp_path / "live.npy")[0], to_screen(VIDEOS[0]))


def test_a_preview_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(ValueError, match="file is not a folder"),
        PreviewWriter(tmp_path / "file" / "live.mp4", 8) as writer,
    ):
        writer(1, VIDEOS)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (256, 256)),
        ((704, 1280), (352, 640)),
        ((256, 96), (256, 96)),
        ((810, 16), (270, 6)),
    ],
)
def test_files_of_previews_have_about_256_rows_and_even_sides(size, expected):
    assert to_screen(np.zeros((2, *size, 3), np.uint8)).shape == (2, *expected, 3)
