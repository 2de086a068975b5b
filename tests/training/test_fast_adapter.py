"""Losses and gradients of stage 3, against PyTorch."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from flashmotion_jax.config import FastAdapterConfig, OptimizerConfig, ScaleConfig, TimestepsConfig
from flashmotion_jax.training.stages.fast_adapter import adapter_loss, adversarial_loss
from helpers import toy

STEP = 600


def config(**changes):
    optimizer = OptimizerConfig(learning_rate=1e-3)
    return FastAdapterConfig(
        slow_generator="",
        fast_generator="",
        slow_adapter="",
        adapter="resnet",
        optimizer=optimizer,
        discriminator_optimizer=optimizer,
        **changes,
    )


CONFIGS = {
    "data": config(real_penalty=3.0, fake_penalty=5.0, penalty_noise=0.1),
    "sampler": config(
        fake_from="sampler",
        timesteps=TimestepsConfig(shift=5.0, low=20.0, high=980.0),
        diffusion_scale=ScaleConfig(slope=1e-3, offset=0.1),
    ),
}
ADAPTER = {name: adapter_loss(value) for name, value in CONFIGS.items()}
DISCRIMINATOR = {name: adversarial_loss(value) for name, value in CONFIGS.items()}


class Setting:
    """A configuration, its networks in both frameworks, and a batch."""

    def __init__(self, name, reference):
        self.name, self.reference = name, reference
        self.models, self.batch, self.keys = toy.models(), toy.batch(), toy.keys(1)
        self.video = reference.Video(self.batch)
        roles = ("adapter", "discriminator", "slow_generator", "fast_generator")
        self.weights = {role: reference.weights(self.models[role]) for role in roles}

    def fake(self, keys):
        student = self.weights["fast_generator"], self.weights["adapter"]
        if self.name == "sampler":
            return self.reference.student_sample(*student, self.video, keys)
        for_noise, for_steps = keys.split(2)
        levels = self.reference.tensor(self.reference.SIGMAS)
        sigma = levels[self.reference.integers_of(for_steps.videos, 4)]
        noise = self.reference.noise_of(for_noise.videos)
        noisy = self.reference.add_noise(self.video.latents, noise, sigma)
        x0 = self.reference.predict_x0(*student, noisy, sigma, self.video)
        return self.reference.with_image(x0, self.video.image)

    def logits(self, x0, keys, perturbation=0.0):
        for_noise, for_timesteps = keys.split(2)
        spread = (5.0, 20.0, 980.0) if self.name == "sampler" else (1.0,)
        sigma = self.reference.sigmas_of(for_timesteps.videos, *spread)
        noise = self.reference.noise_of(for_noise.videos)
        noisy = self.reference.add_noise(x0, noise, sigma) + perturbation
        networks = self.weights["discriminator"], self.weights["slow_generator"]
        return self.reference.logits(*networks, noisy, sigma, self.video)


@pytest.fixture(params=CONFIGS)
def setting(request, reference):
    return Setting(request.param, reference)


def test_the_adapters_loss_and_gradient(reference, setting):
    from torch.nn.functional import softplus

    for step in (0, STEP):
        value, gradients, terms, metrics = toy.evaluate(
            ADAPTER[setting.name], setting.models, setting.batch, setting.keys, step
        )
        scale = {"data": 0.25e-3 * step, "sampler": 1e-3 * step + 0.1}[setting.name]
        assert terms["diffusion"].weight == pytest.approx(scale)
        assert terms["adversarial"].weight == 1.0

        for_fake, for_logits = setting.keys.split(2)
        fake = setting.fake(for_fake)
        logits = setting.logits(fake, for_logits)
        diffusion = reference.error(fake, setting.video.latents)
        loss = softplus(-logits).mean() + scale * diffusion
        adapter = setting.weights["adapter"]
        reference.compare(value, gradients["adapter"], loss, adapter)
        for tensor in adapter.values():
            tensor.grad = None
        assert terms["diffusion"].value == pytest.approx(diffusion.item(), rel=1e-5)
        assert metrics["fake_logits"] == pytest.approx(logits.mean().item(), rel=1e-4, abs=1e-6)


def test_the_discriminators_loss_and_gradient(reference, setting):
    from torch.nn.functional import softplus

    value, gradients, terms, metrics = toy.evaluate(
        DISCRIMINATOR[setting.name], setting.models, setting.batch, setting.keys
    )
    for_fake, for_logits, for_penalty = setting.keys.split(3)
    fake_x0 = setting.fake(for_fake).detach()
    real = setting.logits(setting.video.latents, for_logits)
    fake = setting.logits(fake_x0, for_logits)
    loss = softplus(-real).mean() + softplus(fake).mean()
    if setting.name == "data":
        noise = 0.1 * reference.noise_of(for_penalty.videos)
        perturbed = setting.logits(setting.video.latents, for_logits, noise)
        loss = loss + 3.0 * ((real - perturbed) ** 2).mean()
        perturbed = setting.logits(fake_x0, for_logits, noise)
        loss = loss + 5.0 * ((fake - perturbed) ** 2).mean()
    assert ("real_penalty" in terms) == ("fake_penalty" in terms) == (setting.name == "data")
    reference.compare(value, gradients["discriminator"], loss, setting.weights["discriminator"])
    for array in (*gradients["adapter"].values(), *gradients["fast_generator"].values()):
        np.testing.assert_array_equal(array, 0)
    accuracy = ((real > 0).double().mean() + (fake < 0).double().mean()) / 2
    assert metrics["accuracy"] == pytest.approx(accuracy.item())
    assert metrics["real_logits"] == pytest.approx(real.mean().item(), rel=1e-4, abs=1e-6)


def test_real_and_fake_share_noise_and_timestep():
    """Fakes that equal the real videos get the same logits."""
    batch = toy.batch(1)

    class Perfect(toy.DiT):
        """Points from the noisy latents at the real ones."""

        def __call__(self, latents, timesteps, text, residuals=None):
            return (latents - batch.latents) / toy.level(timesteps[:, -1:])

    models = toy.models() | {"fast_generator": Perfect(0)}
    _, _, terms, metrics = toy.evaluate(DISCRIMINATOR["data"], models, batch, toy.keys(0, 1))
    logit = metrics["real_logits"]
    assert metrics["fake_logits"] == pytest.approx(float(logit), abs=1e-6)
    expected = jax.nn.softplus(-logit) + jax.nn.softplus(logit)
    assert terms["adversarial"].value == pytest.approx(float(expected), abs=1e-6)
    real_penalty, fake_penalty = (terms[f"{of}_penalty"].value for of in ("real", "fake"))
    assert real_penalty == pytest.approx(float(fake_penalty), rel=1e-3)


def test_the_diffusion_loss_alone(reference):
    losses = adapter_loss(
        config(adversarial=False, diffusion_scale=ScaleConfig(slope=0.0, offset=1.0))
    )
    setting = Setting("data", reference)
    models = {role: setting.models[role] for role in ("adapter", "fast_generator")}
    value, gradients, terms, _ = toy.evaluate(losses, models, setting.batch, setting.keys)
    assert list(terms) == ["diffusion"]
    for_fake, _ = setting.keys.split(2)
    loss = reference.error(setting.fake(for_fake), setting.video.latents)
    reference.compare(value, gradients["adapter"], loss, setting.weights["adapter"])
