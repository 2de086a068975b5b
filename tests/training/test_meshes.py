"""Stages with sharded videos, weights and tokens, against the same stages on one device."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flashmotion_jax.training.trainer import train
from helpers import run_small

MESH = ("mesh.data=2", "mesh.fsdp=2", "mesh.context=2")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    run_small.prepare(folder)
    return folder


def logged(folder):
    """Losses and gradient norms of each step."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in line.items() if "loss" in key or "norm" in key}
        for line in lines
    ]


@pytest.mark.parametrize("stage", ["slow_adapter", "fast_generator", "fast_adapter"])
def test_eight_devices_give_the_numbers_of_one(prepared, tmp_path, stage):
    assert_same_on_eight_devices(prepared, tmp_path, stage)


def test_muon_on_eight_devices_with_accumulation_gives_the_numbers_of_one(prepared, tmp_path):
    options = ("stage.optimizer.kind=muon", "stage.optimizer.accumulate=2", "batch_size=8")
    assert_same_on_eight_devices(prepared, tmp_path, "slow_generator", *options)


def assert_same_on_eight_devices(prepared, tmp_path, stage, *changes):
    runs = {"one": (), "several": MESH}
    for name, mesh in runs.items():
        options = ("num_train_steps=2", "batch_size=4", *mesh, *changes)
        train(run_small.config(prepared, tmp_path / name, stage, *options))
    one, several = (logged(tmp_path / name) for name in runs)
    assert len(one) == len(several) == 2
    for expected, found in zip(one, several, strict=True):
        assert expected.keys() == found.keys() and len(expected) > 1
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-5, err_msg=key)
