from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

import pytest

from flashmotion_jax.cli import options
from flashmotion_jax.cli.main import build_parser, main


@pytest.mark.parametrize("chosen", [None, "elsewhere"])
def test_commands_keep_compiled_programs_unless_the_user_chose_a_folder(
    chosen, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    if chosen:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", chosen)
    options.keep_compiled_programs()
    default = str(tmp_path / "flashmotion" / "compiled")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == (chosen or default)
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


def test_a_command_chooses_the_folder_before_it_imports_jax(tmp_path):
    code = (
        "from flashmotion_jax.cli.main import main\n"
        "main(['sample', '--out', 'video.gif'])\n"  # refused, but only after jax was imported
        "import jax; print(jax.config.jax_compilation_cache_dir)"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(tmp_path / "flashmotion" / "compiled")


def parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def test_every_path_is_checked(capsys):
    """An empty path, often an unset variable of a shell, would mean the current folder."""
    paths = 0
    for parser in parsers(build_parser()):
        outputs = sum((parser.get_default("outputs") or {}).values(), ())
        for action in parser._actions:
            is_path = re.search(r"\b(DIR|SRC|DST|FILE|MODEL)\b|\bF\.", str(action.metavar))
            if is_path and action.dest not in outputs and action.const != "":
                assert action.type in (options.path_text, options.path), (parser.prog, action)
                paths += 1
    assert paths > 20
    with pytest.raises(SystemExit):
        main(["evaluate", "--bench", "sprites", "--root", "x", "--pred", ""])
    assert (
        "argument --pred: '' cannot be the name of a file; expected a path"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("text", ["1/2", "2/2"])
def test_a_part_is_a_number_and_a_count(text):
    assert options.part(text) == tuple(map(int, text.split("/")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("dir:b/a.safetensors", ("dir:b/a.safetensors", 1.0)),
        ("C:\\a.safetensors", ("C:\\a.safetensors", 1.0)),
        ("C:\\a.safetensors:-0.5", ("C:\\a.safetensors", -0.5)),
        ("a.safetensors:.8", ("a.safetensors", 0.8)),
        ("style:2.safetensors", ("style:2.safetensors", 1.0)),
        ("folder:2", ("folder", 2.0)),
    ],
)
def test_a_lora_is_a_file_and_a_weight(text, expected):
    assert options.lora(text) == expected


@pytest.mark.parametrize("text", ["a:nan", "a:inf", "a:x", "a:", ":1", "", "  "])
def test_what_is_no_lora(text):
    with pytest.raises(argparse.ArgumentTypeError):
        options.lora(text)
