"""A flipped bit anywhere in a checkpoint is an error, whatever file it is in."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.verification import verify_components
from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.inference.pipeline import shipped_model
from flashmotion_jax.runtime.errors import UserError
from helpers import tiny


def read(folder, file):
    """Reads the part of a checkpoint that a file belongs to, as a pipeline does."""
    kind = next((kind for kind in components.kinds() if (folder / kind) in file.parents), None)
    if kind is None:
        components.open_checkpoint(folder)
    else:
        components.load_component(folder, kind, "float32")


def flip(file, rng):
    data = bytearray(file.read_bytes())
    position = rng.integers(8 * len(data))
    data[position // 8] ^= 1 << position % 8
    file.write_bytes(data)


def files_of(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("small") / "model", SamplingConfig())
    components.save_tokenizer(folder, folder / "tokenizer")  # with checksums
    return folder


def test_a_flipped_bit_in_any_file_raises(small, tmp_path):
    require_all_flips_found(shutil.copytree(small, tmp_path / "model"), None)


def require_all_flips_found(folder, num_flips):
    """Flips one bit at a time, in every file or at random places, and expects an error."""
    rng = np.random.default_rng(0)
    files = files_of(folder)
    sizes = np.array([file.stat().st_size for file in files], float)
    if num_flips is not None:
        anywhere = rng.choice(len(files), num_flips // 2, p=sizes / sizes.sum())
        any_file = rng.choice(len(files), num_flips - num_flips // 2)
        files = [files[index] for index in (*anywhere, *any_file)]
    for file in files:
        original = file.read_bytes()
        flip(file, rng)
        with pytest.raises(UserError, match=r"copy|convert"):
            read(folder, file)
        file.write_bytes(original)
    read(folder, folder / "model.json")


def test_verify_names_the_file(small, tmp_path):
    copy = shutil.copytree(small, tmp_path / "model")
    assert {problem for _, problem in verify_components(copy)} == {None}
    file = max(files_of(copy / "dit"), key=lambda file: file.stat().st_size)
    flip(file, np.random.default_rng(0))
    problem = dict(verify_components(copy))["dit"]
    assert problem is not None and f"{file} differs from what was written" in problem


def test_a_checkpoint_of_an_earlier_version_has_no_checksums_and_loads(small, tmp_path):
    copy = shutil.copytree(small, tmp_path / "model")
    for file in copy.rglob("checksums.json"):
        file.unlink()
    for kind in ("dit", "adapters/resnet"):
        components.load_component(copy, kind, "float32")
    components.open_checkpoint(copy)


@pytest.mark.slow
def test_200_flipped_bits_of_the_shipped_model_raise(tmp_path):
    require_all_flips_found(shutil.copytree(shipped_model(), tmp_path / "model"), 200)
