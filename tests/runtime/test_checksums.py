"""One flipped bit, a missing file or an extra one is found."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flashmotion_jax.runtime import checksums
from flashmotion_jax.runtime.errors import UserError

VALUES = {"format": "x", "list": [1, 2.5, None], "nested": {"a": True}}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "params").mkdir(parents=True)
    (folder / "config.json").write_text('{"width": 4}')
    (folder / "params" / "data").write_bytes(np.random.default_rng(0).bytes(3000))
    checksums.write_checksums(folder)
    return folder


def test_an_untouched_folder_is_undamaged(folder):
    assert checksums.find_damage(folder) == []
    checksums.require_undamaged(folder)


@pytest.mark.parametrize("name", ["config.json", "params/data", checksums.FILE_NAME])
def test_every_flipped_bit_is_found(folder, name):
    file = folder / name
    original = file.read_bytes()
    positions = np.arange(8 * len(original))
    for position in positions[:: 1 + len(positions) // 4000]:
        damaged = bytearray(original)
        damaged[position // 8] ^= 1 << position % 8
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=name.split("/")[-1]):
            checksums.require_undamaged(folder)


def test_missing_and_extra_files_are_found(folder):
    (folder / "config.json").rename(folder / "other.json")
    damage = checksums.find_damage(folder)
    assert damage is not None and len(damage) == 2
    with pytest.raises(UserError, match=r"config\.json is missing, and 1 more; copy or convert"):
        checksums.require_undamaged(folder)


def test_some_files_alone_can_be_checked(folder):
    (folder / "params" / "data").write_bytes(b"changed")
    checksums.require_undamaged(folder, ["config.json"])


def test_a_folder_of_an_earlier_version_passes(tmp_path):
    assert checksums.find_damage(tmp_path) is None
    checksums.require_undamaged(tmp_path)


def test_json_comes_back(tmp_path):
    file = tmp_path / "a.json"
    checksums.write_json(file, VALUES)
    assert checksums.read_json(file) == VALUES
    file.write_text(json.dumps(VALUES))
    assert checksums.read_json(file) == VALUES


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, ""])
def test_what_is_no_json_object_is_an_error(tmp_path, text):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(UserError, match="is not"):
        checksums.read_json(file)
