"""`flashmotion cache` and `flashmotion train`: what they print, reject and return."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashmotion_jax import SamplingConfig
from flashmotion_jax.cli.main import main
from helpers import magicdata_tree, small_cache, tiny

CONFIGS = Path(__file__).parents[2] / "configs"
STAGE_1 = str(CONFIGS / "stage1_box.py")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tiny.save_checkpoint(folder / "model", SamplingConfig(negative_prompt="blurry"))
    small_cache.make_cache(folder / "cache", num_rows=4)
    return folder


def settings(world, **changes):
    values = {
        "cache": world / "cache",
        "batch_size": 2,
        "dtype": "float32",
        "remat": "none",
        "mesh.fsdp": 1,
        "sample_every": 0,
        "num_train_steps": 2,
        "stage.slow_generator": world / "model",
        "stage.start_from": world / "model",
        "stage.adapter.width": 16,
    } | changes
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def test_a_run_and_its_resumption(world, tmp_path, capfd):
    command = ["train", "--config", STAGE_1, *settings(world, workdir=tmp_path / "run")]
    assert main(command) == 0
    out, err = capfd.readouterr()
    assert out == f"completed 2 steps in {tmp_path}/run; wrote {tmp_path}/run/model\n"
    assert "saved step 2" in err
    assert main(command) == 0
    out, err = capfd.readouterr()
    assert "resuming from step 2" in err
    assert main([*command, "--resume", "never"]) == 2
    assert "holds a run" in capfd.readouterr().err
    assert main([*command, "--set", "stage.optimizer.beta1=0.5"]) == 2
    assert "stage.optimizer.beta1: 0.9 -> 0.5" in capfd.readouterr().err


def test_a_dry_run_reads_and_writes_nothing(world, tmp_path, capfd):
    command = ["train", "--config", STAGE_1, *settings(world, workdir=tmp_path / "run")]
    assert main([*command, "--dry-run"]) == 0
    out = capfd.readouterr().out
    config, lines = out[: out.index("\n}") + 2], out[out.index("\n}") + 3 :]
    assert json.loads(config)["stage"]["optimizer"]["learning_rate"] == 2e-6
    for text in (
        "adapter, blocks.projection: 2,448 parameters, learning rate 2e-06",
        f"slow_generator: {world}/model/dit, frozen, weights ",
        "memory per device: 0.00",
        "update of adapter: ",
        " TFLOP, and ",
        "batch.latents: float32 [2, 3, 4, 6, 48]",
        "batch.text: float32 [2, 16, 32]",
    ):
        assert text in lines
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage.adapter.width": 8}, "has width=16; the configuration asks for width=8"),
        ({"stage.slow_generator": "nowhere"}, "nowhere does not exist"),
        ({"cache": "nowhere"}, "nowhere"),
        ({"batch_size": 5}, "batch_size=5; expected 1 to 4"),
        ({"mesh.fsdp": 64}, "needs 64 devices; found 8"),
        ({"stage.optimizer.groups": "{'blocks': 1}"}, "leave out the parameters stem"),
        ({"stage.optimizer.accumulate": 3}, "cannot be split into accumulate=3 equal parts"),
        ({"map_kind": "boxes"}, "expected one of mask, box"),
    ],
)
def test_bad_input_is_one_line_and_status_2(world, tmp_path, capfd, changes, message):
    workdir = tmp_path / "run"
    assert main(["train", "--config", STAGE_1, *settings(world, workdir=workdir, **changes)]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.startswith("flashmotion: ")
    assert "Traceback" not in error


def test_a_cache_and_its_verification(world, tmp_path, capfd):
    root = magicdata_tree.make_tree(tmp_path / "MagicData", count=2)
    with (root / "MagicData.csv").open("a") as file:
        file.write("v2.mp4,a dog, that runs,9,24,5.5\n")
        file.writelines(f"gone{i}.mp4,a dog,9,24,5.5\n" for i in range(30))
    values = {
        "data_root": tmp_path / "MagicData",
        "model": world / "model",
        "output": tmp_path / "cache",
        "num_frames": 5,
        "height": 32,
        "width": 64,
        "videos_per_shard": 1,
    }
    assignments = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    command = ["cache", "--config", str(CONFIGS / "cache_magicdata.py"), *assignments]
    assert main([*command, "--part", "2/2"]) == 0
    assert "part 2 of 2" in capfd.readouterr().out
    assert main(command) == 0
    printed = capfd.readouterr().out
    assert f"{tmp_path}/cache: 2 videos, 0.00 GB; 31 rows rejected" in printed
    assert "rejected: line 4 (v2.mp4): it has 6 fields, the header 5: put quotes" in printed
    assert "rejected: line 5 (gone0): no videos/gone0.mp4" in printed
    assert printed.count("rejected: ") == 21 and "rejected: 11 more" in printed
    assert main([*command, "--verify"]) == 0
    shard = tmp_path / "cache" / "shard_00000.array_record"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert main([*command, "--verify"]) == 1
    assert f"damaged: {shard}" in capfd.readouterr().out


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b"])
def test_a_part_is_one_of_many(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["cache", "--config", "x", "--part", text])
    assert "expected N/M" in capsys.readouterr().err
