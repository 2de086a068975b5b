from __future__ import annotations

import os

import pytest

from flashmotion_jax.cli import main as cli
from flashmotion_jax.media.videos import check_output
from flashmotion_jax.runtime.atomic import check_file, check_folder, replacing
from flashmotion_jax.runtime.errors import UserError


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


@pytest.mark.parametrize("check", [check_file, check_folder, check_output])
@pytest.mark.parametrize("inside", ["out.mp4", "new/out.mp4"])
def test_folders_without_permission_are_told(tmp_path, check, inside):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:  # nothing is forbidden to root
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="not a folder that this user can write to"):
            check(folder / inside)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("words", [["bench"], ["plan", "--sample", "--topology", "h200:1"]])
def test_long_commands_check_the_output_first(tmp_path, monkeypatch, capsys, words):
    monkeypatch.setattr("flashmotion_jax.perf.topology.prepare_environment", lambda: None)
    assert cli.main([*words, "--json", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
