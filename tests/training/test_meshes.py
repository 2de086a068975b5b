"""A stage whose videos are shared by several devices, against the same stage on one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from training import run_small

from flashmotion_jax.training.loop import train

MESHES = ("mesh.data=2", "mesh.context=2")


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


@pytest.mark.parametrize(
    "stage",
    [
        "fast_adapter",
        pytest.param("slow_adapter", marks=pytest.mark.slow),
        pytest.param("fast_generator", marks=pytest.mark.slow),
    ],
)
def test_a_stage_over_tokens_is_that_of_one_device(prepared, tmp_path, stage):
    runs = {"one": (), "several": MESHES}
    for name, mesh in runs.items():
        train(run_small.config(prepared, tmp_path / name, stage, "steps=2", *mesh))
    one, several = (logged(tmp_path / name) for name in runs)
    assert len(one) == len(several) == 2
    for expected, found in zip(one, several, strict=True):
        assert expected.keys() == found.keys() and len(expected) > 1
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=2e-4, atol=1e-6, err_msg=key)
