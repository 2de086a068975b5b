"""Every command checks all that it will write before it starts to work."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from flashmotion_jax.cli import convert
from flashmotion_jax.cli.main import build_parser, main

CONFIGS = Path(__file__).parents[2] / "configs"
#: The inputs do not exist, so that a command that starts to work fails with another message.
COMMANDS = {
    "sample --out": ["sample", "--model", "missing", "--out", "{file}.mp4"],
    "sample --out array": ["sample", "--model", "missing", "--out", "{file}.npy"],
    "sample --out folder": ["sample", "--model", "missing", "--out", "{folder}"],
    "sample --preview": ["sample", "--model", "missing", "--preview", "{file}.mp4"],
    "sample --live-preview": ["sample", "--model", "missing", "--live-preview", "{file}.mp4"],
    "sample --profile": ["sample", "--model", "missing", "--profile", "{folder}"],
    "sample --prompt-cache": ["sample", "--model", "missing", "--prompt-cache", "{folder}"],
    "convert import": ["convert", "import", "missing", "{folder}"],
    "convert export": ["convert", "export", "missing", "{folder}", "--layout", "original"],
    "convert export file": ["convert", "export", "missing", "{file}.pt", "--adapter", "resnet"],
    "convert metrics": ["convert", "metrics", "missing.pth", "{folder}"],
    "cache": ["cache", "--config", str(CONFIGS / "cache_magicdata.py"), "--set", "output={folder}"],
    "train": ["train", "--config", str(CONFIGS / "stage1_box.py"), "--set", "workdir={folder}"],
    "train --profile": ["train", "--config", "missing.py", "--profile", "{folder}"],
    "new": ["new", "{folder}", "--config", "missing.py"],
    "evaluate": ["evaluate", "--out", "{folder}"],
    "evaluate --pred": [
        *["evaluate", "--generate", "--bench", "folder", "--root", "missing"],
        *["--pred", "{folder}"],
    ],
    "evaluate compare": ["evaluate", "compare", "missing", "missing", "--json", "{file}.json"],
    "evaluate export": [
        *["evaluate", "export", "--method", "tora", "--bench", "folder", "--root", "missing"],
        *["--out", "{folder}"],
    ],
    "plan": ["plan", "--sample", "missing", "--topology", "h200:1", "--json", "{file}.json"],
    "bench": ["bench", "--layers", "0", "--json", "{file}.json"],
    "edit": ["edit", "--image", "missing.png", "--history", "{folder}"],
}
BAD = {
    "not writable": ("/proc/out", "cannot write /proc/out"),
    "below a file": ("{tmp}/taken/out", "taken is not a folder that this user can write to"),
    "NUL": ("a\0b", "cannot be the name of a file"),
    "address": ("http://127.0.0.1:9/out", "it is an address"),
    "pipe": ("pipe:1", "it is an address"),
    "long": ("{tmp}/" + "x" * 250, "too long for a file"),
    "surrogate": ("\ud800", "cannot be the name of a file"),
}


@pytest.fixture
def taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("mine")
    return tmp_path


def refused(words, path, capsys):
    """The one line of a command that ends with status 2."""
    command = [word.replace("{file}", path).replace("{folder}", path) for word in words]
    before = sorted(Path().iterdir())
    try:
        status = main(command)
    except SystemExit as exit:  # of argparse
        status = exit.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(Path().iterdir()) == before
    return line


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_outputs_are_checked_first(taken, capsys, words):
    for path, message in BAD.values():
        assert message in refused(words, path.replace("{tmp}", str(taken)), capsys)
    if any("{folder}" in word for word in words):
        assert "taken is a file" in refused(words, str(taken / "taken"), capsys)
        if "--set" not in words:
            assert "'' cannot be the name" in refused(words, "", capsys)
    else:
        (taken / "out").mkdir()
        for suffix in (".mp4", ".npy", ".pt", ".json"):
            Path(f"folder{suffix}").symlink_to("out")
        if "sample" not in words:  # an existing folder of any name gets PNG files
            assert "is a folder" in refused(words, str(taken / "folder"), capsys)


def test_two_outputs_have_two_names(taken, capsys):
    words = ["sample", "--model", "missing", "--out", "a.mp4", "--preview", "{file}.mp4"]
    assert "a.mp4 is given for two outputs" in refused(words, "./a", capsys)


def test_devices_are_not_replaced(taken, capsys):
    words = ["bench", "--layers", "0", "--json", "{file}"]
    assert "exists and is not a file" in refused(words, "/dev/null", capsys)


def parsers(parser):
    """All parsers of commands below one."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def test_every_argument_that_names_an_output_is_declared():
    names = {"out", "preview", "json", "profile", "history", "destination", "prompt_cache"}
    undeclared = set()
    for parser in [*parsers(build_parser()), *parsers(convert.build_parser())]:
        declared = {
            name for some in (parser.get_default("outputs") or {}).values() for name in some
        }
        arguments = {action.dest for action in parser._actions}
        undeclared |= {(parser.prog.split()[-1], name) for name in arguments & names - declared}
    # A file with --adapter, else a folder; `_export` checks it.
    assert undeclared == {("export", "destination")}
