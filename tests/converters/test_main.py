from __future__ import annotations

import subprocess
import sys

import pytest

from converters.__main__ import main


@pytest.mark.parametrize("command", [[], ["wan22"], ["flashmotion"], ["inspect"], ["export"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: python -m converters" in capsys.readouterr().out


def test_help_imports_neither_jax_nor_torch():
    code = (
        "import sys\nfrom converters.__main__ import build_parser\nbuild_parser().format_help()\n"
        "sys.exit(bool({'jax', 'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["wan22", "a"],
        ["wan22", "a", "b", "--only", "dit,unet"],
        ["wan22", "a", "b", "--dtype", "int8"],
        ["export", "a", "b"],
        ["export", "a", "b", "--layout", "original", "--adapter", "resnet"],
        ["flashmotion", "a", "b", "--weights", "critic"],
    ],
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_interrupt(monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("converters.inspection.inspect", interrupt)
    assert main(["inspect", "a"]) == 130
    assert "no file is half written" in capsys.readouterr().err
