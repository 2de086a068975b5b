"""Updates against PyTorch's AdamW, clipping and schedules."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.config import OptimizerConfig
from flashmotion_jax.models import layers
from flashmotion_jax.training.train_state import (
    apply_gradients,
    create_train_state,
    from_arrays,
    group_of_path,
    learning_rate,
    to_arrays,
)


class Net(nnx.Module):
    """Parameters in the module itself and in a submodule."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.body = layers.linear(4, 3, (None, None), policy=layers.FLOAT32, rngs=nnx.Rngs(0))
        self.body.kernel[...] = jnp.asarray(rng.standard_normal((4, 3)), jnp.float32)
        self.body.bias[...] = jnp.asarray(rng.standard_normal(3), jnp.float32)
        self.scale = nnx.Param(jnp.asarray(rng.standard_normal(5), jnp.float32))


CONFIGS = {
    "plain": OptimizerConfig(learning_rate=1e-2, weight_decay=0.1),
    "as in stage 2": OptimizerConfig(learning_rate=1e-2, beta1=0.0, ema_decay=0.9, ema_start=5),
    "clipped": OptimizerConfig(learning_rate=1e-2, clip_norm=0.5, eps=1e-3),
    "warm-up, cosine, groups": OptimizerConfig(
        learning_rate=1e-2,
        warmup_updates=3,
        decay="cosine",
        decay_updates=6,
        groups={"body": 1.0, "body.kernel": 0.25, "scale": 2.0},
    ),
    "linear": OptimizerConfig(
        learning_rate=1e-2, clip_norm=2.0, decay="linear", decay_updates=8, ema_decay=0.5
    ),
    "warm-up, constant, linear": OptimizerConfig(
        learning_rate=1e-2, warmup_updates=2, constant_updates=4, decay="linear", decay_updates=3
    ),
}
UPDATES = 12


def share_of_peak(config, updates):
    """The learning rate relative to its peak, from the formulas."""
    if updates < config.warmup_updates:
        return updates / config.warmup_updates
    constant_end = config.warmup_updates + config.constant_updates
    done = max(0, updates - constant_end) / (config.decay_updates or math.inf)
    falling = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * min(done, 1))) / 2,
        "linear": 1 - min(done, 1),
    }
    return falling[config.decay]


def gradients():
    rng = np.random.default_rng(1)
    shapes = {path: array.shape for path, array in to_arrays(Net()).items()}
    return [
        {path: rng.standard_normal(shape).astype(np.float32) for path, shape in shapes.items()}
        for _ in range(UPDATES)
    ]


@functools.cache
def states(name):
    """The state before and after every update."""
    config = CONFIGS[name]
    module = Net()
    step = jax.jit(
        lambda state, arrays, step: apply_gradients(
            state, from_arrays(module, arrays), config, step
        )
    )
    states = [create_train_state(module, config)]
    for index, arrays in enumerate(gradients()):
        states.append(step(states[-1], arrays, index))
    return states


@pytest.mark.parametrize("name", CONFIGS)
def test_updates_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    config = CONFIGS[name]
    weights = {
        path: torch.tensor(np.array(array, np.float64), requires_grad=True)
        for path, array in to_arrays(Net()).items()
    }
    factor = {"body.kernel": 0.25, "body.bias": 1.0, "scale": 2.0} if len(config.groups) > 1 else {}
    optimizer = torch.optim.AdamW(
        [
            {"params": [tensor], "lr": factor.get(path, 1.0) * config.learning_rate}
            for path, tensor in weights.items()
        ],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, functools.partial(share_of_peak, config)
    )
    for arrays, state in zip(gradients(), states(name)[1:], strict=True):
        for path, tensor in weights.items():
            tensor.grad = torch.tensor(arrays[path], dtype=torch.float64)
        torch.nn.utils.clip_grad_norm_(weights.values(), config.clip_norm)
        optimizer.step()
        schedule.step()
        for path, array in to_arrays(state.params).items():
            expected = weights[path].detach().numpy()
            np.testing.assert_allclose(array, expected, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", CONFIGS)
def test_learning_rate_over_time(name):
    config = CONFIGS[name]
    rates = [float(learning_rate(config)(updates)) for updates in range(UPDATES)]
    expected = [config.learning_rate * share_of_peak(config, n) for n in range(UPDATES)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["as in stage 2", "linear"])
def test_the_moving_average_equals_the_weights_before_ema_start(name):
    config = CONFIGS[name]
    expected = to_arrays(Net())
    for step, state in enumerate(states(name)[1:]):
        weights = to_arrays(state.params)
        decay = config.ema_decay if step >= config.ema_start else 0.0
        expected = {p: decay * expected[p] + (1 - decay) * a for p, a in weights.items()}
        for path, array in to_arrays(state.ema).items():
            np.testing.assert_allclose(array, expected[path], atol=1e-6, err_msg=path)
            if step < config.ema_start:
                np.testing.assert_array_equal(array, weights[path])


def test_updates_are_counted_and_an_average_is_kept_only_on_request():
    assert [int(state.num_updates) for state in states("plain")] == list(range(UPDATES + 1))
    assert states("plain")[-1].ema is None


def test_the_initial_state_is_the_unchanged_module():
    module = Net()
    state = create_train_state(module, CONFIGS["linear"])
    for path, array in to_arrays(module).items():
        np.testing.assert_array_equal(to_arrays(state.params)[path], array)
        np.testing.assert_array_equal(to_arrays(state.ema)[path], array)


def test_from_arrays_does_not_change_the_old_module():
    module = Net()
    before = to_arrays(module)
    new = from_arrays(module, {path: array + 1 for path, array in before.items()})
    for path, array in before.items():
        np.testing.assert_array_equal(to_arrays(module)[path], array)
        np.testing.assert_array_equal(to_arrays(new)[path], array + 1)


def test_the_longest_prefix_wins_and_ends_at_a_dot():
    paths = ["blocks.ffn.up", "blocks.norm", "blocks_of_others.up", "head"]
    assert group_of_path(["", "blocks", "blocks.ffn"], paths) == {
        "blocks.ffn.up": "blocks.ffn",
        "blocks.norm": "blocks",
        "blocks_of_others.up": "",
        "head": "",
    }


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"body": 1.0}, r"groups=\['body'\] leave out the parameters scale; add a group for them"),
        ({"": 1.0, "bod": 2.0}, r"the groups \['bod'\] match no parameter; .* body, scale"),
        ({"": 1.0, "body": 1.0, "scale": 1.0}, r"the groups \[''\] match no parameter"),
    ],
)
def test_groups_that_do_not_fit_the_parameters(groups, message):
    config = OptimizerConfig(learning_rate=1e-3, groups=groups)
    with pytest.raises(ValueError, match=message):
        create_train_state(Net(), config)


def test_updates_too_small_for_bfloat16_accumulate_in_the_masters():
    policy = layers.Policy(compute=jnp.bfloat16, params=jnp.float32)
    linear = layers.linear(1, 1, (None, None), policy=policy, rngs=nnx.Rngs(0))
    linear.kernel[...] = jnp.ones((1, 1))
    config = OptimizerConfig(learning_rate=1e-3, beta1=0.0, weight_decay=0.0)

    def output(linear):
        return linear(jnp.ones((1, 1)))[0, 0].astype(jnp.float32)

    @jax.jit
    def step(state):
        return apply_gradients(state, jax.grad(output)(state.params), config, jnp.int32(0))

    state = step(create_train_state(linear, config))
    weight = state.params.kernel[...]
    # Below 1, bfloat16 goes in steps of 2^-8: one update is not seen, ten of them are.
    assert weight.dtype == jnp.float32 and weight.astype(jnp.bfloat16) == 1
    assert weight[0, 0] == pytest.approx(1 - 1e-3, abs=1e-6)
    for _ in range(9):
        state = step(state)
    assert state.params.kernel[...][0, 0] == pytest.approx(1 - 1e-2, abs=1e-5)
    assert output(state.params) < output(linear) - 0.005
