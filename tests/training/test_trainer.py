"""The transfer guard, the profiles and the exported geometry of the trainer."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.training import trainer
from flashmotion_jax.training.inputs import LatentInputs
from flashmotion_jax.training.trainer import train
from helpers import run_small, small_cache, tiny


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    run_small.prepare(folder)
    return folder


def test_an_implicit_transfer_within_a_step_is_an_error(prepared, tmp_path, monkeypatch):
    make_train_step = trainer.make_train_step

    def with_transfer(update, config):
        train_step = make_train_step(update, config)

        def step(state, models, batch, key, step):
            state, metrics = train_step(state, models, batch, key, step)
            return state, metrics | {"extra": jnp.ones(3) @ np.ones(3, np.float32)}

        return step

    monkeypatch.setattr(trainer, "make_train_step", with_transfer)
    config = run_small.config(prepared, tmp_path / "run", "slow_adapter", "num_train_steps=2")
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(config, quiet=True)


def test_a_profile_of_the_steps_after_warm_up(prepared, tmp_path, capsys):
    """Every second step updates the adapter, so all updates are compiled after step 1."""
    config = run_small.config(prepared, tmp_path / "run", "fast_adapter", "num_train_steps=6")
    train(config, profile=tmp_path / "profile")
    assert (
        f"profiled steps 2 to 4: tensorboard --logdir {tmp_path}/profile" in capsys.readouterr().err
    )
    # The layout that TensorBoard's profile plugin reads.
    (file,) = (tmp_path / "profile" / "plugins" / "profile").glob("*/*.xplane.pb")
    content = file.read_bytes()
    assert b"train_step" in content and b"step_num" in content


def test_a_run_too_short_for_a_profile_says_so(prepared, tmp_path, capsys):
    config = run_small.config(prepared, tmp_path / "run", "slow_adapter", "num_train_steps=1")
    train(config, profile=tmp_path / "profile")
    assert "no profile: the run ended before" in capsys.readouterr().err
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize(
    ("resize", "changes"),
    [
        ("crop", {}),
        ("stretch", {"resize": "stretch", "size_from": "model", "height": 64, "width": 96}),
    ],
)
def test_a_model_is_sampled_in_the_geometry_of_its_cache(tmp_path, resize, changes):
    small_cache.make_cache(tmp_path, resize=resize)
    inputs = LatentInputs(SimpleNamespace(cache=str(tmp_path), map_kind="box"), tiny.DIT)
    expected = dataclasses.replace(SamplingConfig(), **changes)
    assert inputs.sampling(SamplingConfig()) == expected
