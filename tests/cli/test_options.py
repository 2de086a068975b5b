from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flashmotion_jax.cli import options


@pytest.mark.parametrize("chosen", [None, "elsewhere"])
def test_commands_keep_compiled_programs_unless_the_user_chose_a_folder(
    chosen, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    if chosen:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", chosen)
    options.keep_compiled_programs()
    default = str(tmp_path / "flashmotion" / "compiled")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == (chosen or default)


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


@pytest.mark.parametrize("text", ["1/2", "2/2"])
def test_a_part_is_a_number_and_a_count(text):
    assert options.part(text) == tuple(map(int, text.split("/")))
