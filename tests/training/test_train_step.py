"""Accumulated and separate gradients, on one device and on a mesh; keys, compilation, donation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flashmotion_jax.config import (
    FastAdapterConfig,
    FastGeneratorConfig,
    LCMConfig,
    MatchingConfig,
    OptimizerConfig,
    SlowAdapterConfig,
)
from flashmotion_jax.diffusion.samplers import draw_noise
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.training.stages import fast_adapter, fast_generator, lcm, slow_adapter
from flashmotion_jax.training.train_state import create_train_state, to_arrays
from flashmotion_jax.training.train_step import LossTerm, Update, make_train_step, split_keys
from helpers import toy

KEY = jax.random.key(5)

#: A first update that is smooth in the gradient, not its sign.
SMOOTH = functools.partial(
    OptimizerConfig, learning_rate=0.1, eps=1.0, weight_decay=0.0, clip_norm=1e9
)


def two_terms(models, batch, keys, step):
    """Two loss terms that depend on every input and on both kinds of keys."""
    for_noise, for_level = keys.split(2)
    level = jax.random.uniform(for_level.shared)
    noisy = batch.latents + draw_noise(for_noise.videos, toy.SHAPE)
    residual = models["adapter"].prepare(batch.trajectory + level * noisy, batch.text)
    first = jnp.mean((residual - batch.latents) ** 2)
    second = jnp.mean(jnp.abs(residual * toy.per_channel(models["adapter"].gate)))
    terms = {
        "first": LossTerm(first),
        "second": LossTerm(models.get("boost", 1.0) * second, 0.5 * step),
    }
    return terms, {"level": level, "residual": residual.mean()}


def on_mesh(mesh, models, batch):
    replicated, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), sharding.BATCH))
    return jax.device_put(models, replicated), jax.device_put(batch, split)


def run_update(loss_fn, config, *, model="adapter", mesh=(1, 1), **update):
    """One update from the same initial state, possibly on a larger mesh."""
    run = make_train_step(Update(model, loss_fn, **update), config)
    begin = program(functools.partial(create_train_state, config=config))
    mesh = sharding.make_mesh(*mesh)
    with jax.set_mesh(mesh):
        models, batch = on_mesh(mesh, toy.models(), toy.batch(8))
        return run(begin(models.pop(model)), models, batch, KEY, jnp.int32(1))


def assert_same(actual, expected):
    """Compare states after an update, and their metrics."""
    (state, metrics), (other, other_metrics) = actual, expected
    assert metrics.keys() == other_metrics.keys()
    pairs = [(metrics, other_metrics), (to_arrays(state.params), to_arrays(other.params))]
    for values, others in pairs:
        for name, value in values.items():
            np.testing.assert_allclose(
                np.asarray(value), np.asarray(others[name]), atol=1e-6, rtol=1e-5, err_msg=name
            )


@functools.cache
def whole():
    return run_update(two_terms, SMOOTH())


@pytest.mark.parametrize(("mesh", "accumulate"), [((1, 1), 2), ((2, 2), 1), ((2, 2), 2)])
def test_accumulation_and_meshes_do_not_change_the_update(mesh, accumulate):
    config = SMOOTH(accumulate=accumulate)
    assert_same(run_update(two_terms, config, mesh=mesh), whole())


def test_the_update_follows_the_gradient_of_the_weighted_sum():
    def total(adapter):
        batch = toy.batch(8)
        keys = split_keys(KEY, batch)
        terms, _ = two_terms({"adapter": adapter}, batch, keys, 1)
        return terms["first"].value + 0.5 * terms["second"].value

    value, gradient = jax.jit(jax.value_and_grad(total))(toy.models()["adapter"])
    state, metrics = whole()
    assert float(metrics["loss/first"] + 0.5 * metrics["loss/second"]) == pytest.approx(
        float(value)
    )
    assert metrics["weight/first"] == 1 and metrics["weight/second"] == 0.5
    assert metrics["learning_rate"] == np.float32(0.1) and state.num_updates == 1
    before = to_arrays(toy.models()["adapter"])
    for path, g in to_arrays(gradient).items():
        expected = before[path] - 0.1 * g / (jnp.abs(g) + 1)
        np.testing.assert_allclose(to_arrays(state.params)[path], expected, atol=1e-6)
    norm = optax.tree.norm(to_arrays(gradient))
    assert metrics["gradient_norm"] == pytest.approx(float(norm), rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_separate_gradients_make_the_same_update(accumulate):
    state, metrics = run_update(two_terms, SMOOTH(accumulate=accumulate), separate_gradients=True)
    norms = {name: metrics.pop(f"gradient_norm/{name}") for name in ("first", "second")}
    assert_same((state, metrics), whole())
    if accumulate == 2:
        return

    @jax.jit
    def norms_of_terms(adapter):
        def value(adapter, name):
            batch = toy.batch(8)
            return two_terms({"adapter": adapter}, batch, split_keys(KEY, batch), 1)[0][name].value

        return {name: optax.tree.norm(jax.grad(value)(adapter, name)) for name in norms}

    for name, expected in norms_of_terms(toy.models()["adapter"]).items():
        assert norms[name] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("separate", [False, True])
def test_a_term_of_weight_0_changes_nothing(separate):
    """The weight is `0.5 * step`, and so 0 at step 0, as for the diffusion loss of stage 3."""

    run = make_train_step(Update("adapter", two_terms, separate_gradients=separate), SMOOTH())

    def weights_after(boost, step):
        models = toy.models() | {"boost": jnp.float32(boost)}
        state = create_train_state(models.pop("adapter"), SMOOTH())
        return to_arrays(run(state, models, toy.batch(8), KEY, jnp.int32(step))[0].params)

    one, other = weights_after(1.0, 0), weights_after(1000.0, 0)
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path])
    assert not np.array_equal(weights_after(1000.0, 1)["gate"], one["gate"])


def test_each_group_has_its_learning_rate_and_norm():
    state, metrics = run_update(two_terms, SMOOTH(groups={"": 1.0, "gate": 0.5}))
    of_one_group = to_arrays(whole()[0].params)
    for path, before in to_arrays(toy.models()["adapter"]).items():
        moved = to_arrays(state.params)[path] - before
        factor = {"gate": 0.5}.get(path, 1.0)
        np.testing.assert_allclose(moved, factor * (of_one_group[path] - before), atol=1e-6)
    squares = metrics["gradient_norm/gate"] ** 2 + metrics["gradient_norm/rest"] ** 2
    assert metrics["gradient_norm"] ** 2 == pytest.approx(float(squares), rel=1e-5)


@pytest.mark.parametrize(
    ("mesh", "accumulate", "message"),
    [
        ((1, 1), 3, "batch_size=8 cannot be split into accumulate=3 equal parts over 1 devices"),
        ((2, 2), 4, "accumulate=4 equal parts over 4 devices each; expected a multiple of 16"),
    ],
)
def test_a_batch_that_cannot_be_split_is_an_error(mesh, accumulate, message):
    with pytest.raises(ValueError, match=message):
        run_update(two_terms, SMOOTH(accumulate=accumulate), mesh=mesh)


def test_a_videos_keys_do_not_depend_on_its_batch():
    large, small = split_keys(KEY, toy.batch(8)), split_keys(KEY, toy.batch(2))
    assert large.shared == small.shared
    for one, other in zip(large.split(3), small.split(3), strict=True):
        assert one.shared == other.shared
        assert jnp.all(one.videos[:2] == other.videos)
    keys = jnp.concatenate([keys.videos for keys in (large, *large.split(3))])
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 4 * 8


def test_keys_are_sharded_as_their_videos():
    mesh = sharding.make_mesh(2, 2)
    with jax.set_mesh(mesh):
        _, batch = on_mesh(mesh, {}, toy.batch(8))
        keys = jax.jit(split_keys)(KEY, batch)
        assert keys.videos.sharding.spec == sharding.BATCH
    assert jnp.all(keys.videos == split_keys(KEY, toy.batch(8)).videos)


@pytest.mark.parametrize(
    ("every", "start", "steps"),
    [(1, 0, [0, 1, 2, 3, 4, 5]), (3, 0, [2, 5]), (2, 3, [3, 5]), (1, 4, [4, 5])],
)
def test_when_an_update_is_due(every, start, steps):
    update = Update("adapter", two_terms, every, start)
    assert [step for step in range(6) if update.is_due(step)] == steps


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
def test_one_compilation_for_all_steps_and_the_state_is_donated(mesh):
    traces = []

    def losses(models, batch, keys, step):
        traces.append(step)
        assert "adapter_ema" in models
        return two_terms(models, batch, keys, step)

    config = OptimizerConfig(
        learning_rate=1e-3, ema_decay=0.9, accumulate=2, decay="linear", decay_updates=5
    )
    run = make_train_step(Update("adapter", losses), config)
    mesh, counts = sharding.make_mesh(*mesh), []
    with jax.set_mesh(mesh):
        models, _ = on_mesh(mesh, toy.models(), ())
        del models["adapter_ema"]
        state = program(functools.partial(create_train_state, config=config))(models.pop("adapter"))
        for step in range(3):
            before, (_, batch) = state, on_mesh(mesh, {}, toy.batch(8, step))
            state, _ = run(state, models, batch, jax.random.key(step), jnp.int32(step))
            counts.append(len(traces))
            assert all(array.is_deleted() for array in to_arrays(before.params).values())
            assert all(array.is_deleted() for array in to_arrays(before.ema).values())
    assert counts[0] == counts[1] == counts[2] > 0
    assert state.num_updates == 3


RATE = OptimizerConfig(learning_rate=1e-3)
STAGES = {
    "stage 1": (
        "adapter",
        slow_adapter.adapter_loss(SlowAdapterConfig(slow_generator="", optimizer=RATE)),
    ),
    "stage 2": (
        "generator",
        fast_generator.generator_losses(
            FastGeneratorConfig(
                slow_generator="",
                optimizer=RATE,
                fake_score_optimizer=RATE,
                matching=MatchingConfig(),
            )
        )[0],
    ),
    "stage 3": (
        "discriminator",
        fast_adapter.adversarial_loss(
            FastAdapterConfig(
                slow_generator="",
                fast_generator="",
                slow_adapter="",
                adapter="resnet",
                optimizer=RATE,
                discriminator_optimizer=RATE,
                real_penalty=1.0,
            )
        ),
    ),
    "LCM": (
        "adapter",
        lcm.lcm_loss(
            LCMConfig(
                slow_generator="",
                fast_generator="",
                slow_adapter="",
                adapter="resnet",
                optimizer=OptimizerConfig(learning_rate=1e-3, ema_decay=0.9),
            )
        ),
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_stages_with_accumulation_on_a_mesh(stage):
    """Two microbatches on four devices, against the whole batch on one."""
    model, losses = STAGES[stage]
    expected, metrics = run_update(losses, SMOOTH(), model=model)
    parted, parted_metrics = run_update(losses, SMOOTH(accumulate=2), model=model, mesh=(2, 2))
    # A ratio of means, which is not the mean of the parts' ratios.
    for of in (metrics, parted_metrics):
        of.pop("temporal_variance", None)
    assert_same((parted, parted_metrics), (expected, metrics))
