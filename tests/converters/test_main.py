from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flashmotion_jax.cli.convert import main
from flashmotion_jax.cli.main import main as flashmotion
from flashmotion_jax.config import SamplingConfig
from helpers import tiny


@pytest.mark.parametrize(
    "command", [[], ["wan22"], ["flashmotion"], ["inspect"], ["export"], ["verify"], ["metrics"]]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: python -m converters" in capsys.readouterr().out


def test_help_imports_neither_jax_nor_torch():
    code = (
        "import sys\nfrom flashmotion_jax.cli.convert import build_parser\n"
        "build_parser().format_help()\n"
        "sys.exit(bool({'jax', 'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["import", "export", "inspect", "verify", "metrics"])
def test_flashmotion_has_the_commands(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        flashmotion(["convert", command, "--help"])
    assert f"usage: flashmotion convert {command}" in capsys.readouterr().out


def test_the_module_in_a_checkout():
    command = [sys.executable, "-m", "converters", "inspect", "missing.pt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr.startswith("converters: missing.pt does not exist")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", ".", "b", "--component", "dit"], "--component, --map and --set are for files"),
        (["import", "a.safetensors", "b", "--only", "dit"], "--only is for folders"),
    ],
)
def test_options_of_the_other_kind_of_source(arguments, message, capsys):
    assert flashmotion(["convert", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_verify(tmp_path, capsys):
    folder = tiny.save_checkpoint(tmp_path / "model", SamplingConfig())
    assert flashmotion(["convert", "verify", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder}: intact"
    largest = max((folder / "dit").rglob("d/*"), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    (folder / "vae" / "params" / "manifest.ocdbt").unlink()
    assert flashmotion(["convert", "verify", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if "intact" not in line] == [
        "dit",
        "vae",
        str(folder),
    ]
    assert flashmotion(["convert", "verify", str(tmp_path)]) == 2
    assert "is not a folder with a model.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["wan22", "a"],
        ["wan22", "a", "b", "--only", "dit,unet"],
        ["wan22", "a", "b", "--dtype", "int4"],
        ["export", "a", "b"],
        ["export", "a", "b", "--layout", "original", "--adapter", "resnet"],
        ["flashmotion", "a", "b", "--weights", "critic"],
    ],
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert printed.endswith(" --help\n") and printed.count("\n") == 1


def test_interrupt(monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("flashmotion_jax.converters.inspection.inspect", interrupt)
    assert main(["inspect", "a"]) == 130
    assert "it left no partial files" in capsys.readouterr().err
