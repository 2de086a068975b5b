"""A flipped bit anywhere in a checkpoint is an error, whatever file it is in."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples.small_checkpoint import write_small_adapter, write_small_checkpoint
from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.verification import verify_components
from flashmotion_jax.config import OptimizerConfig, SamplingConfig
from flashmotion_jax.converters.importing import convert_file, convert_wan22
from flashmotion_jax.inference.pipeline import shipped_model
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.training.checkpoints import Checkpoints, Snapshot
from flashmotion_jax.training.train_state import create_train_state
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


def choose(files, number, rng):
    """Files to damage: half of them by their sizes, as any bit is equally likely, half equally."""
    sizes = np.array([file.stat().st_size for file in files], float)
    anywhere = rng.choice(len(files), number // 2, p=sizes / sizes.sum())
    any_file = rng.choice(len(files), number - number // 2)
    return [files[index] for index in (*anywhere, *any_file)]


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
    for file in files if num_flips is None else choose(files, num_flips, rng):
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


@pytest.mark.slow
def test_200_flipped_bits_of_a_converted_model_raise(tmp_path):
    pytest.importorskip("torch")
    source = write_small_checkpoint(tmp_path / "wan")
    adapter = write_small_adapter(tmp_path / "adapter.safetensors")
    kinds = ["dit", "vae", "text_encoder"]
    options = {"dtype": "bfloat16", "overwrite": False}
    convert_wan22(str(source), tmp_path / "model", kinds=kinds, **options)
    convert_file(str(adapter), tmp_path / "model", **options)
    require_all_flips_found(tmp_path / "model", 200)


class Net(nnx.Module):
    """Layers whose train state has files below and above 1 MiB."""

    def __init__(self):
        self.kernel = nnx.Param(jax.random.normal(jax.random.key(0), (4, 512, 512)))
        self.bias = nnx.Param(jnp.zeros(512))


@pytest.mark.slow
def test_200_flipped_bits_of_a_training_checkpoint_fall_back_to_the_previous_one(tmp_path, capfd):
    optimizer = OptimizerConfig(learning_rate=0.1, ema_decay=0.9)
    with jax.set_mesh(sharding.make_mesh()):
        state = jax.jit(lambda: create_train_state(Net(), optimizer))()
        checkpoints = Checkpoints(tmp_path, 9)
        for step in (2, 4):
            checkpoints.save(step, Snapshot({"net": state}, jax.random.key(step), {"at": step}), {})
        checkpoints.close()
        abstract = {"net": jax.eval_shape(lambda: create_train_state(Net(), optimizer))}
        rng = np.random.default_rng(0)
        files = [tmp_path / "4.json", *files_of(tmp_path / "4")]
        assert sum(file.stat().st_size > 2**20 for file in files) >= 2
        manifest = (tmp_path / "4.json").read_bytes()
        for file in choose(files, 200, rng):
            original = file.read_bytes()
            flip(file, rng)
            messages = []
            checkpoints = Checkpoints(tmp_path, 9)
            restored = checkpoints.restore(abstract, messages.append)
            checkpoints.close()
            assert restored is not None and restored[0] == 2
            assert restored[1].data == {"at": 2}
            assert len(messages) == 1 and "checkpoint 4 is damaged" in messages[0]
            (tmp_path / "damaged" / "4").rename(tmp_path / "4")
            (tmp_path / "4.json").write_bytes(manifest)
            file.write_bytes(original)
        checkpoints = Checkpoints(tmp_path, 9)
        restored = checkpoints.restore(abstract, pytest.fail)
        checkpoints.close()
    assert restored is not None and restored[0] == 4
    assert "Traceback" not in capfd.readouterr().err
