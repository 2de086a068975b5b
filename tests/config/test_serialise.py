from __future__ import annotations

import pytest

from flashmotion_jax.config import (
    FastGeneratorConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainConfig,
    from_dict,
    with_overrides,
)
from flashmotion_jax.runtime.errors import UserError


@pytest.fixture
def run():
    optimizer = OptimizerConfig(learning_rate=1e-5)
    stage = FastGeneratorConfig(
        slow_generator="model", optimizer=optimizer, fake_score_optimizer=optimizer
    )
    return TrainConfig(stage=stage, workdir="runs/x", num_train_steps=3)


def test_values_of_every_type(run):
    changed = with_overrides(
        run,
        [
            "num_train_steps=7",
            "dtype=float32",
            "workdir=runs/7",
            "mesh.data=4",
            "stage.slow_generator=3",
            "stage.optimizer.learning_rate=3e-5",
            "stage.optimizer.weight_decay=1",
            "stage.optimizer.groups={'': 1, 'blocks': 0.5}",
            "stage.matching.student.denoising_steps=(1000, 500)",
            "stage.matching.student.warp_denoising_steps=false",
        ],
    )
    assert (changed.num_train_steps, changed.dtype, changed.workdir, changed.mesh.data) == (
        *(7, "float32", "runs/7", 4),
    )
    assert changed.stage.slow_generator == "3"
    assert changed.stage.optimizer.learning_rate == 3e-5
    assert changed.stage.optimizer.weight_decay == 1.0
    assert changed.stage.optimizer.groups == {"": 1.0, "blocks": 0.5}
    assert changed.stage.matching.student.denoising_steps == (1000, 500)
    assert changed.stage.matching.student.warp_denoising_steps is False
    assert run.num_train_steps == 3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("num_train_steps", "expected key=value"),
        (
            "num_train_step=1",
            "unknown key 'num_train_step' for TrainConfig; did you mean 'num_train_steps'",
        ),
        ("stage.optimiser.beta1=0", "did you mean 'optimizer'"),
        ("stage.zzz=0", "known keys"),
        ("num_train_steps=1.5", "expected a whole number"),
        ("num_train_steps=true", "expected a whole number"),
        ("stage.optimizer.beta1=high", "expected a number"),
        ("stage.optimizer.beta1=2", "beta1=2.0; expected at least 0 and below 1"),
        ("stage.optimizer.groups={'': 'x'}", "expected dict"),
        ("stage.optimizer.groups={'': 0}", "expected factors above 0"),
        ("stage.matching.student.denoising_steps=(1000, 1.5)", "expected tuple"),
        ("stage.matching.student.warp_denoising_steps=1", "expected true or false"),
        ("dtype=float16", "expected one of bfloat16, float32"),
        ("stage=3", "key.field=value"),
        ("seed.x=3", "seed is a value and has no 'x'"),
        ("num_train_steps=0", "num_train_steps=0; expected at least 1"),
    ],
)
def test_errors_name_the_assignment_and_what_was_expected(run, assignment, message):
    with pytest.raises(ValueError, match=r"^--set ") as caught:
        with_overrides(run, [assignment])
    assert assignment in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"x\.json: \[\] is not a SamplingConfig; expected an object"),
        ("text", "is not a SamplingConfig"),
        ({"height": "64"}, "height='64'; expected a whole number"),
        ({"height": 64.5}, r"height=64\.5; expected a whole number"),
        ({"height": None}, "height=None; expected a whole number"),
        ({"shift": "5"}, "shift='5'; expected a number"),
        ({"denoising_steps": 3}, "denoising_steps=3"),
        ({"denoising_steps": [1000, "x"]}, "denoising_steps="),
        ({"negative_prompt": 3}, "negative_prompt=3"),
        ({"sampler": "ddim"}, "sampler='ddim'; expected one of few_step"),
        ({"warp_denoising_steps": 1}, "warp_denoising_steps=1; expected true or false"),
    ],
)
def test_values_of_json_have_the_types_of_their_fields(values, message):
    with pytest.raises(UserError, match=message):
        from_dict(SamplingConfig, values, "x.json")
    assert from_dict(SamplingConfig, {"shift": 3, "denoising_steps": [1000, 500]}).shift == 3
