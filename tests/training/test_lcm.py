"""Baseline LCM against PyTorch; DMD is in test_distribution_matching.py."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.config import LCMConfig, OptimizerConfig
from flashmotion_jax.training.stages.lcm import lcm_loss
from helpers import toy


def config(**changes):
    return LCMConfig(
        slow_generator="",
        fast_generator="",
        slow_adapter="",
        adapter="resnet",
        optimizer=OptimizerConfig(learning_rate=1e-3, ema_decay=0.95),
        num_timesteps=4,
        guidance_scale=5.0,
        **changes,
    )


LOSSES = lcm_loss(config())

#: 1, 0.75025, 0.5005, 0.25075 shifted by 5, then 0.
LEVELS = [5 * s / (1 + 4 * s) for s in (1.0, 0.75025, 0.5005, 0.25075)] + [0.0]


def levels_of(reference, keys):
    return reference.integers_of(keys.split(2)[1].videos, 4)


def test_the_loss_and_its_gradient(reference):
    """At all levels; at the last one, the target is the end of the teacher's step."""
    models, batch = toy.models(), toy.batch(8)
    keys = next(
        keys
        for keys in (toy.keys(seed, 8) for seed in range(100))
        if set(levels_of(reference, keys).tolist()) == {0, 1, 2, 3}
    )
    value, gradients, terms, _ = toy.evaluate(LOSSES, models, batch, keys)
    assert list(terms) == ["consistency"]

    roles = ("adapter", "adapter_ema", "slow_adapter", "slow_generator", "fast_generator")
    weights = {role: reference.weights(models[role]) for role in roles}
    video = reference.Video(batch)
    index = levels_of(reference, keys)
    levels = reference.tensor(LEVELS)
    sigma, next_sigma = levels[index], levels[index + 1]
    noise = reference.noise_of(keys.split(2)[0].videos)
    noisy = reference.add_noise(video.latents, noise, sigma)
    teacher = weights["slow_generator"], weights["slow_adapter"]
    without_text = video.with_text(models["negative_text"])
    without = reference.velocity(*teacher, noisy, sigma, without_text)
    velocity = without + 5.0 * (reference.velocity(*teacher, noisy, sigma, video) - without)
    closer = noisy + reference.over(next_sigma - sigma) * velocity
    student = weights["fast_generator"]
    ema = weights["adapter_ema"]
    target = reference.predict_x0(student, ema, closer, next_sigma, video).detach()
    np.testing.assert_array_equal(target[index == 3], closer.detach()[index == 3])
    prediction = reference.predict_x0(student, weights["adapter"], noisy, sigma, video)
    loss = reference.error(prediction, target)
    reference.compare(value, gradients["adapter"], loss, weights["adapter"])
    for role in roles[1:4]:
        for array in gradients[role].values():
            np.testing.assert_array_equal(array, 0)


def test_the_target_of_a_perfect_teacher_is_the_data(reference):
    """At the last level the target is the data, whatever the adapter's moving average predicts."""
    keys = next(
        keys
        for keys in (toy.keys(seed, 1) for seed in range(100))
        if levels_of(reference, keys).tolist() == [3]
    )
    batch = toy.batch(1)

    class Teacher(toy.DiT):
        """Points from the noisy latents at the data."""

        def __call__(self, latents, timesteps, text, residuals=None):
            return (latents - batch.latents) / toy.level(timesteps[:, -1:])

    models = toy.models() | {"slow_generator": Teacher(0)}
    value, *_ = toy.evaluate(LOSSES, models, batch, keys)
    video = reference.Video(batch)
    noise = reference.noise_of(keys.split(2)[0].videos)
    sigma = reference.tensor(LEVELS)[[3]]
    adapter, student = (reference.weights(models[r]) for r in ("adapter", "fast_generator"))
    noisy = reference.add_noise(video.latents, noise, sigma)
    prediction = reference.predict_x0(student, adapter, noisy, sigma, video)
    assert value == pytest.approx(reference.error(prediction, video.latents).item(), rel=1e-5)


def test_targets_need_a_moving_average():
    with pytest.raises(ValueError, match=r"optimizer.ema_decay=0; .* for example 0\.95"):
        LCMConfig(
            slow_generator="",
            fast_generator="",
            slow_adapter="",
            adapter="resnet",
            optimizer=OptimizerConfig(learning_rate=1e-3),
        )
