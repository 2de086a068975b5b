"""Every command that writes a folder is refused while another process writes it, and says whose."""

from __future__ import annotations

import pytest

from examples.small_checkpoint import write_small_adapter, write_small_checkpoint
from flashmotion_jax.cli.main import main
from flashmotion_jax.data.sprites.__main__ import main as sprites
from flashmotion_jax.inference.pipeline import shipped_model
from helpers.lock_holder import holding


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Inputs of the commands: a Wan2.2 folder, an adapter, a benchmark."""
    folder = tmp_path_factory.mktemp("sources")
    write_small_checkpoint(folder / "wan", torch_files=False)
    write_small_adapter(folder / "adapter.safetensors")
    sprites([str(folder / "bench"), "--count", "1", "--num-frames", "5"])
    return folder


def run(program, *args):
    return program([str(arg) for arg in args])


COMMANDS = {
    "convert import of a folder": (
        {"beside": True},
        lambda wan, out: run(main, "convert", "import", wan / "wan", out),
    ),
    "convert import of a file": (
        {"beside": True},
        lambda wan, out: run(main, "convert", "import", wan / "adapter.safetensors", out),
    ),
    "convert export": (
        {"beside": True},
        lambda wan, out: run(main, "convert", "export", shipped_model(), out, "--layout=original"),
    ),
    "convert export of an adapter": (
        {"beside": True},
        lambda wan, out: run(
            main, "convert", "export", shipped_model(), f"{out}.safetensors", "--adapter=resnet"
        ),
    ),
    "new": ({"beside": True}, lambda wan, out: run(main, "new", out, "--config=sprites/model")),
    "evaluate": (
        {},
        lambda wan, out: run(
            *(main, "evaluate", "--bench=sprites", "--root", wan / "bench"),
            *("--pred", wan / "bench" / "videos", "--out", out),
        ),
    ),
    "evaluate of another part": (
        {"part": (1, 2)},
        lambda wan, out: run(
            *(main, "evaluate", "--bench=sprites", "--root", wan / "bench", "--part=1/2"),
            *("--pred", wan / "bench" / "videos", "--out", out),
        ),
    ),
    "evaluate export": (
        {},
        lambda wan, out: run(
            *(main, "evaluate", "export", "--method=tora", "--bench=sprites"),
            *("--root", wan / "bench", "--out", out),
        ),
    ),
    "sprites": ({}, lambda wan, out: run(sprites, out, "--count", "1")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_second_writer_is_told_who_the_first_is(sources, tmp_path, capsys, name):
    options, command = COMMANDS[name]
    out = tmp_path / "out"
    path = tmp_path / "out.safetensors" if "adapter" in name else out
    with holding(path, **options) as process:
        assert command(sources, out) == 2
        error = capsys.readouterr().err.splitlines()[-1]
    assert f"{path} is being written by process {process.pid} on" in error
