from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

import flashmotion_jax
from flashmotion_jax import SamplingConfig, read_video
from flashmotion_jax.cli.main import main
from helpers import tiny

CONFIGS = Path(__file__).parents[2] / "configs"
SAMPLING = SamplingConfig(height=32, width=64, num_frames=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("checkpoint"), SAMPLING)


@pytest.fixture
def inputs(tmp_path):
    """An image and a trajectory on disk, as arguments."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    box = [0.1, 0.1, 0.4, 0.6]
    moved = [0.5, 0.1, 0.8, 0.6]
    trajectory = {
        "version": 1,
        "canvas": {"width": 80, "height": 40},
        "num_frames": 5,
        "fps": 24,
        "objects": [
            {
                "id": 1,
                "name": "ball",
                "keyframes": [{"frame": 0, "box": box}, {"frame": 4, "box": moved}],
            }
        ],
    }
    (tmp_path / "trajectory.json").write_text(json.dumps(trajectory))
    image, boxes = str(tmp_path / "image.png"), str(tmp_path / "trajectory.json")
    return ["--image", image, "--prompt", "a red ball", "--trajectory", boxes]


def test_sample_writes_video_and_preview(folder, inputs, tmp_path, capsys):
    out, preview = tmp_path / "out.mp4", tmp_path / "preview.mp4"
    status = main(
        ["sample", "--model", str(folder), *inputs, "--out", str(out), "--preview", str(preview)]
    )
    assert status == 0
    properties = iio.improps(out, plugin="pyav")
    assert properties.shape == (5, 32, 64, 3)
    assert iio.immeta(out, plugin="pyav")["fps"] == 24
    assert read_video(preview)[0].shape == (5, 256, 1024, 3)  # of 32 x 64 beside its map, 8 x
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == (f"wrote {out} and {preview}: 5 frames, 64 x 32, 24 fps")
    for stage in ("text", "encode", "denoise", "decode", "write", "total"):
        assert f"\n{stage}" in printed.out
    assert "denoise" in printed.err and "4/4" in printed.err


@pytest.mark.parametrize("name", ["out.npy", "frames"])
def test_sample_writes_arrays_and_folders_of_the_same_pixels(folder, inputs, tmp_path, name):
    first = tmp_path / "first.npy"
    assert main(["sample", "--model", str(folder), *inputs, "--out", str(first)]) == 0
    assert main(["sample", "--model", str(folder), *inputs, "--out", str(tmp_path / name)]) == 0
    np.testing.assert_array_equal(read_video(tmp_path / name)[0], np.load(first))


def test_text_to_video_takes_no_adapter(folder, tmp_path):
    arguments = ["--prompt", "a dog", "--sampler", "unipc", "--steps", "2"]
    out = tmp_path / "out.npy"
    negative = ["--negative-prompt", "red", "--guidance-scale", "2", "--shift", "3"]
    status = main(["sample", "--model", str(folder), *arguments, *negative, "--out", str(out)])
    assert status == 0 and np.load(out).shape == (5, 32, 64, 3)


def test_a_profile_of_the_run(folder, tmp_path, capsys):
    arguments = ["--prompt", "a dog", "--steps", "1", "--out", str(tmp_path / "out.npy")]
    profile = tmp_path / "profile"
    command = ["sample", "--model", str(folder), *arguments, "--profile", str(profile)]
    assert main(command) == 0
    assert list(profile.glob("plugins/profile/*/*.xplane.pb"))
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"; profile in {profile}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-frames", "6"], "num_frames=6; expected 4 n + 1"),
        (["--num-frames", "1000000001"], "the video: 1000000001 frames of 32 x 64 pixels"),
        (["--height", "16384", "--width", "16384"], "the video: 16384 x 16384 pixels"),
        (["--out", "video.gif"], "cannot write video.gif"),
        (["--out", ""], "'' cannot be the name of a file"),
        (["--out", "a\0.mp4"], "cannot be the name of a file"),
        (["--image", "missing.png"], "no image at missing.png"),
        (["--trajectory", "missing.json"], "missing.json"),
        (["--model", "missing"], "missing does not exist"),
        (
            ["--model", __file__],
            "test_main.py is not a folder with a model.json; expected a checkpoint",
        ),
        (["--adapter", "none"], "a trajectory without an adapter"),
        (["--shift", "nan"], "shift=nan; expected a positive number"),
        (["--adapter-scale", "nan"], "adapter_scale=nan; expected a finite number"),
    ],
)
def test_bad_input_is_status_2_and_one_readable_line(folder, inputs, capsys, arguments, message):
    assert main(["sample", "--model", str(folder), *inputs, *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err
    assert printed.err.startswith("flashmotion: ") and printed.err.count("\n") == 1


def test_bad_arguments_are_status_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["sample", "--model", "x", "--height", "big"])
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert "--height: invalid int value: 'big'; see flashmotion sample --help" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["sample", "--image", ""],
        ["sample", "--trajectory", " "],
        ["sample", "--model", ""],
        ["sample", "--image", "a\0b"],
        ["convert", "inspect", ""],
        ["convert", "import", "", "out"],
        ["convert", "verify", ""],
        ["train", "--config", ""],
        ["evaluate", "--root", ""],
        ["evaluate", "compare", "", "a"],
        ["bench", "--train", ""],
        ["edit", "--image", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command)
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and "; expected a path; see flashmotion" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "many"])
def test_a_number_of_devices_is_at_least_1(count, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["sample", "--devices", count])
    assert stop.value.code == 2
    assert f"--devices: '{count}'; expected a whole number, at least 1" in capsys.readouterr().err


def test_a_failing_disk_is_status_1(folder, inputs, tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flashmotion_jax.media.videos.write_video", full)
    out = tmp_path / "out.npy"
    assert main(["sample", "--model", str(folder), *inputs, "--out", str(out)]) == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1])
def test_a_bug_is_a_traceback_and_bad_input_only_when_asked(place, capsys, monkeypatch):
    arguments = ["sample", "--model", "missing"]
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*arguments[:place], "--traceback", *arguments[place:]]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and "UserError: missing does not exist" in error

    def broken(*args, **options):
        return np.zeros(3) + np.zeros(4)

    monkeypatch.setattr("flashmotion_jax.checkpoints.components.open_checkpoint", broken)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error and "ValueError: operands could not be broadcast" in error


def test_the_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"flashmotion {flashmotion_jax.__version__}\n"


@pytest.mark.parametrize(
    "command", ["sample", "convert", "cache", "train", "new", "evaluate", "plan", "bench", "edit"]
)
def test_every_command_has_help_and_a_traceback(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "--traceback" in capsys.readouterr().out


def test_help_does_not_import_jax():
    code = (
        "import sys, flashmotion_jax.cli.main as c; c.build_parser(); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_sample_without_model_takes_the_one_of_the_package(folder, tmp_path, capsys, monkeypatch):
    arguments = ["sample", "--adapter", "none", "--prompt", "a dog", "--steps", "1"]
    out = tmp_path / "out.npy"
    monkeypatch.setattr("flashmotion_jax.inference.pipeline.shipped_model", lambda: folder)
    assert main([*arguments, "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {out}: 5 frames, 64 x 32, 24 fps"
    assert np.load(out).shape == (5, 32, 64, 3)


def test_new_writes_the_model_of_a_configuration(tmp_path, capsys, monkeypatch):
    called = []
    monkeypatch.setattr(
        "flashmotion_jax.checkpoints.init.init_checkpoint",
        lambda *args: called.append(args) or 1_500_000,
    )
    config = ["--config", f"{CONFIGS}/sprites/model.py", "--set", "dit.num_layers=2"]
    assert main(["new", str(tmp_path / "a"), *config, "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a'}: 1.50 M parameters, untrained\n"
    ((path, config, seed),) = called
    assert (path, config.dit.num_layers, seed) == (str(tmp_path / "a"), 2, 3)
    assert {"a", "red", "left"} <= set(config.words)
    assert config.sampling.height == config.sampling.width == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exists; choose another folder"),
        (["--set", "dit.num_layer=2"], "did you mean 'num_layers'"),
        (["--set", "dit.text_dim=8"], "dit.text_dim=8; expected text_encoder.dim"),
        (["--config", f"{CONFIGS}/stage2.py"], "builds a TrainConfig; expected a NewModelConfig"),
    ],
)
def test_new_with_bad_arguments_is_status_2(tmp_path, capsys, arguments, message):
    config = ["--config", f"{CONFIGS}/sprites/model.py"]
    assert main(["new", str(tmp_path), *config, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_behind(folder, inputs, tmp_path):
    out = tmp_path / "results" / "out.mp4"
    arguments = ["sample", "--model", str(folder), *inputs, "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "flashmotion_jax.cli", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stderr is not None
        text = ""
        while "encode" not in text:
            text += process.stderr.read(1)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "interrupted; it left no partial files" in process.stderr.read()
    assert not out.parent.exists() or not list(out.parent.iterdir())
