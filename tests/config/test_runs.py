from __future__ import annotations

import dataclasses
import json

import pytest

from flashmotion_jax.config import (
    LCMConfig,
    OptimizerConfig,
    SlowAdapterConfig,
    TrainConfig,
    differences,
    to_dict,
    with_overrides,
)

OPTIMIZER = OptimizerConfig(learning_rate=1e-5)


@pytest.fixture
def run():
    stage = SlowAdapterConfig(slow_generator="model", optimizer=OPTIMIZER)
    return TrainConfig(stage=stage, workdir="runs/x", num_train_steps=3)


def differing(old, *changes):
    return differences(json.loads(json.dumps(to_dict(old))), with_overrides(old, changes))


def test_what_decides_the_numbers_differs(run):
    assert differing(run, "seed=1", "stage.optimizer.learning_rate=2e-5") == [
        "seed: 0 -> 1",
        "stage.optimizer.learning_rate: 1e-05 -> 2e-05",
    ]
    assert differing(run, "stage.optimizer.groups={'stem': 1, '': 1}") == [
        "stage.optimizer.groups.stem: nothing -> 1.0"
    ]


def test_fields_that_an_earlier_version_lacked_have_their_defaults(run):
    old = json.loads(json.dumps(to_dict(run)))
    del old["num_workers"], old["mesh"], old["stage"]["optimizer"]["constant_updates"]
    del old["stage"]["timesteps"]
    assert differences(old, run) == []
    changed = with_overrides(run, ["stage.optimizer.constant_updates=5", "stage.timesteps.shift=3"])
    assert differences(old, changed) == [
        "stage.optimizer.constant_updates: 0 -> 5",
        "stage.timesteps.shift: 5.0 -> 3.0",
    ]
    del old["workdir"], old["num_train_steps"]  # without defaults, but free
    assert differences(old, run) == []


def test_where_and_how_long_may_differ(run):
    free = (
        "workdir=y",
        "num_train_steps=9",
        "mesh.data=4",
        "log_every=1",
        "save_every=1",
        "keep=5",
    )
    places = ("cache=elsewhere", "stage.slow_generator=elsewhere", "stage.start_from=elsewhere")
    assert differing(run, *free, *places) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"clip_norm": 0.0}, "clip_norm=0.0"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
        ({"decay": "cosine"}, "expected decay_updates"),
        ({"decay_updates": 5}, "expected decay_updates"),
        ({"groups": {}}, "groups={}"),
    ],
)
def test_invalid_optimizers_raise(values, message):
    with pytest.raises(ValueError) as caught:
        OptimizerConfig(**{"learning_rate": 1.0} | values)
    assert message in str(caught.value)


def test_consistency_needs_a_moving_average():
    names = {"slow_generator": "a", "fast_generator": "b", "slow_adapter": "c"}
    with pytest.raises(ValueError, match=r"optimizer\.ema_decay=0"):
        LCMConfig(**names, adapter="resnet", optimizer=OPTIMIZER)
    with_average = dataclasses.replace(OPTIMIZER, ema_decay=0.5)
    LCMConfig(**names, adapter="resnet", optimizer=with_average)
