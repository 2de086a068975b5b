from __future__ import annotations

import pytest

from flashmotion_jax.cli import main as cli
from flashmotion_jax.runtime.atomic import check_file, replacing


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as scratch:
        scratch.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as scratch:
        scratch.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_check_file_raises_for_unwritable_paths(tmp_path):
    check_file(tmp_path / "new" / "deep" / "file.json")
    check_file("file.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a folder"):
        check_file(tmp_path)
    with pytest.raises(ValueError, match="not a folder"):
        check_file(tmp_path / "file" / "file.json")


@pytest.mark.parametrize("words", [["bench"], ["plan", "--sample", "--topology", "h200:1"]])
def test_long_commands_check_the_output_first(tmp_path, monkeypatch, capsys, words):
    monkeypatch.setattr("flashmotion_jax.perf.topology.prepare_environment", lambda: None)
    assert cli.main([*words, "--json", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
